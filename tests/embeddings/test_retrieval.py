import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from embeddings import retrieval
from embeddings.hierarchy import Hierarchy
from utils import UserError

HIERARCHY = Hierarchy([(0, 1), (0, 2), (1, 3), (1, 4), (2, 5), (2, 6), (6, 7)])
SIMILARITIES = {
    "LCS height": 1 - HIERARCHY.dissimilarity([3, 4, 5, 7]),
    "WUP": HIERARCHY.wu_palmer([3, 4, 5, 7]),
}


def sample(images, dimensions=6):
    rng = np.random.default_rng(images)
    features = rng.standard_normal((images, dimensions)).astype(np.float32)
    labels = rng.integers(4, size=images)
    features[:, 0] += labels  # so that the ranking is better than chance
    return features, labels


def direct_scores(features, labels, similarities, norm):
    """Query by query, as the definitions read."""
    features = features.astype(np.float64)
    if norm:
        features = features / np.linalg.norm(features, axis=1, keepdims=True)
    precisions, curves = [], {name: [] for name in similarities}
    for query in range(len(features)):
        distances = np.linalg.norm(features - features[query], axis=1)
        others = [i for i in np.argsort(distances, kind="stable") if i != query]
        relevant = labels[others] == labels[query]
        if relevant.any():
            precisions.append(average_precision_score(relevant, -distances[others]))
        for name, similarity in similarities.items():
            gains = similarity[labels[query], labels[others]]
            best = np.sort(gains)[::-1]
            curves[name].append((np.cumsum(gains) / np.cumsum(best))[:250])
    result = {"mAP": np.mean(precisions)}
    for name, curve in curves.items():
        curve = np.mean(curve, axis=0)
        result |= {f"HP@{k} ({name})": curve[:k][-1] for k in (1, 10, 50, 100, 250)}
        areas = (curve[1:] + curve[:-1]) / 2
        result[f"mAHP@250 ({name})"] = areas.mean()
    return result


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("images", [30, 300])
def test_matches_the_definitions_and_scikit_learn(images, norm, monkeypatch):
    features, labels = sample(images)
    monkeypatch.setattr(retrieval, "_BLOCK_BYTES", 8 * 4 * images * 7)  # blocks of 7 queries
    result = retrieval.retrieve(features, labels, SIMILARITIES, norm=norm).scores
    expected = direct_scores(features, labels, SIMILARITIES, norm)
    assert result.keys() == expected.keys()
    assert result == pytest.approx(expected, abs=1e-6)


def test_precision_by_recall():
    """Of each query the best precision at that recall or a higher one, as the definition reads."""
    features, labels = sample(40)
    expected = []
    for query in range(len(features)):
        distances = np.linalg.norm(features - features[query], axis=1)
        others = [i for i in np.argsort(distances, kind="stable") if i != query]
        hits = np.cumsum(labels[others] == labels[query])
        precision, recall = hits / np.arange(1, len(others) + 1), hits / hits[-1]
        levels = np.arange(101) / 100
        expected.append([precision[recall >= level - 1e-12].max() for level in levels])
    result = retrieval.retrieve(features, labels, SIMILARITIES).precision
    np.testing.assert_allclose(result, np.mean(expected, axis=0), rtol=1e-9)


def test_one_block_gives_what_many_give(monkeypatch):
    features, labels = sample(100)
    whole = retrieval.retrieve(features, labels, SIMILARITIES).scores
    monkeypatch.setattr(retrieval, "_BLOCK_BYTES", 1)
    assert retrieval.retrieve(features, labels, SIMILARITIES).scores == pytest.approx(whole)


def test_a_perfect_ranking_scores_one():
    # Classes on a line, in an order that no class is nearer than one that is more similar.
    place = np.array([0.0, 1.0, 10.0, 11.0])
    labels = np.repeat(np.arange(4), 80)
    features = place[labels][:, None]
    result = retrieval.retrieve(features, labels, SIMILARITIES).scores
    assert result == pytest.approx(dict.fromkeys(result, 1.0))


def test_the_only_image_of_a_class_does_not_count_for_map():
    features = np.array([[0.0], [0.1], [5.0]])
    result = retrieval.retrieve(features, np.array([0, 0, 3]), SIMILARITIES).scores
    assert result["mAP"] == 1
    assert result["HP@1 (LCS height)"] == 1  # nothing is similar to class 3, so it is left out
    none = retrieval.retrieve(features, np.array([0, 1, 3]), SIMILARITIES).scores
    assert none["mAP"] == 0


def test_a_zero_feature_vector_does_not_break_the_cosine():
    features, labels = sample(20)
    features[3] = 0
    result = retrieval.retrieve(features, labels, SIMILARITIES, norm=True).scores
    assert all(0 <= value <= 1 for value in result.values())


def test_unusable_features_are_refused():
    features, labels = sample(20)
    with pytest.raises(UserError, match="at least two images"):
        retrieval.retrieve(features[:1], labels[:1], SIMILARITIES)
    features[5, 2] = np.nan
    with pytest.raises(UserError, match="not finite"):
        retrieval.retrieve(features, labels, SIMILARITIES)
