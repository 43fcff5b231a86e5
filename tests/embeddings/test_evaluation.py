import numpy as np
import pytest

from embeddings.evaluation import conditional_risk, hierarchical_scores
from embeddings.hierarchy import Hierarchy

# Classes 1 2 | 3 4 below two nodes of height 1 and a root of height 3 (by the chain to 9).
TREE = Hierarchy(
    [(0, 10), (0, 11), (10, 1), (10, 2), (11, 3), (11, 4), (0, 7), (7, 8), (8, 9)],
)
D = TREE.dissimilarity([1, 2, 3, 4])


def test_by_hand():
    # True class first: right; sister; other branch; other branch.
    scores = np.array([[9, 0, 5, 1], [9, 8, 0, 1], [9, 1, 2, 3], [1, 9, 8, 0]])
    labels = np.array([0, 1, 2, 3])
    result = hierarchical_scores(scores, labels, D, TREE.height)
    assert TREE.height == 3
    assert result == {
        "hierarchical_accuracy": pytest.approx(1 - (0 + 1 / 3 + 1 + 1) / 4),
        "mistake_severity": pytest.approx((1 + 3 + 3) / 3),
        "hierarchical_distance@1": pytest.approx((0 + 1 + 3 + 3) / 4),
    }


def test_distances_at_5_and_20_are_means_over_the_best_k():
    rng = np.random.default_rng(0)
    classes, height = 25, 6
    d = rng.random((classes, classes))
    d = (d + d.T) / 2
    np.fill_diagonal(d, 0)
    scores, labels = rng.random((40, classes)), rng.integers(classes, size=40)
    result = hierarchical_scores(scores, labels, d, height)
    for k in (1, 5, 20):
        direct = [
            height * d[label, best]
            for row, label in zip(scores, labels, strict=True)
            for best in sorted(range(classes), key=lambda i, row=row: -row[i])[:k]
        ]
        assert result[f"hierarchical_distance@{k}"] == pytest.approx(np.mean(direct))


def test_without_mistakes_the_severity_is_zero():
    result = hierarchical_scores(np.eye(4), np.arange(4), D, TREE.height)
    assert result["mistake_severity"] == 0
    assert result["hierarchical_accuracy"] == 1


def test_least_expected_cost_can_overrule_the_most_likely_class():
    # Class 1 alone is likeliest, but 3 and 4 together are likelier, and close to each other.
    probabilities = np.array([[0.4, 0.0, 0.31, 0.29]])
    risk = conditional_risk(probabilities, D)
    np.testing.assert_allclose(
        risk, [[0.6, 0.4 / 3 + 0.6, 0.4 + 0.29 / 3, 0.4 + 0.31 / 3]], atol=1e-15
    )
    result = hierarchical_scores(probabilities, np.array([3]), D, 3, probabilities=True)
    assert result["mistake_severity"] == 3
    assert result["crm_mistake_severity"] == pytest.approx(1)
    assert result["crm_accuracy"] == 0
    result = hierarchical_scores(probabilities, np.array([2]), D, 3, probabilities=True)
    assert result["crm_accuracy"] == 1
    assert result["hierarchical_accuracy"] == pytest.approx(0)
    assert result["crm_hierarchical_accuracy"] == pytest.approx(1)


def test_with_equal_costs_least_risk_is_the_most_likely_class():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(6), 50)
    risk = conditional_risk(probabilities, 1 - np.eye(6))
    np.testing.assert_array_equal(risk.argmin(axis=1), probabilities.argmax(axis=1))
    np.testing.assert_allclose(risk, 1 - probabilities)
