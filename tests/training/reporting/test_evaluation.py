import numpy as np
import pytest
from sklearn import metrics

from training.reporting import evaluation


@pytest.fixture
def scores_and_labels():
    rng = np.random.default_rng(3)
    labels = rng.choice([0, 1, 2, 3, 5], p=[0.5, 0.2, 0.1, 0.1, 0.1], size=500)  # 4 is absent
    scores = rng.normal(size=(500, 6))
    scores[np.arange(500), labels] += 1
    return scores, labels


def test_accuracies_equal_those_of_scikit_learn(scores_and_labels):
    scores, labels = scores_and_labels
    predicted = scores.argmax(axis=1)
    known = predicted != 4  # scikit-learn warns of predictions of an absent class
    assert evaluation.accuracy(scores, labels) == pytest.approx(
        metrics.accuracy_score(labels, predicted)
    )
    assert evaluation.average_accuracy(scores[known], labels[known]) == pytest.approx(
        metrics.balanced_accuracy_score(labels[known], predicted[known])
    )
    for k in (1, 2, 5):
        assert evaluation.top_k_accuracy(scores, labels, k) == pytest.approx(
            metrics.top_k_accuracy_score(labels, scores, k=k, labels=range(6))
        )


def test_average_accuracy_counts_classes_not_images():
    scores = np.eye(2)[[0, 0, 0, 0]]
    assert evaluation.accuracy(scores, np.array([0, 0, 0, 1])) == 0.75
    assert evaluation.average_accuracy(scores, np.array([0, 0, 0, 1])) == 0.5
