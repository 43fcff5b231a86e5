import types

import numpy as np
import pytest
import sklearn.metrics
from PIL import Image

from datasets.batches.split import Split
from reports import duplicates, findings
from reports.cautions import _few_predicted


def make_scores(values, labels, probabilities=True):
    values = np.array(values, float)
    names = [f"c{i}" for i in range(values.shape[1])]
    images = [f"{i}.jpg" for i in range(len(labels))]
    return findings.Scores(np.array(labels), values, names, images, probabilities)


SCORES = make_scores(
    [
        [0.9, 0.1, 0.0],
        [0.2, 0.8, 0.0],  # of class 0, taken for 1
        [0.45, 0.55, 0.0],
        [0.0, 0.98, 0.02],  # of class 2, taken for 1
        [0.3, 0.28, 0.42],
    ],
    [0, 0, 1, 2, 2],
)


def test_classes_and_confusions_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    scores = make_scores(random.random((200, 5)), random.integers(0, 4, 200))
    matrix = findings.confusion_matrix(scores)

    np.testing.assert_array_equal(
        matrix, sklearn.metrics.confusion_matrix(scores.labels, scores.predicted, labels=range(5))
    )
    rows = findings.class_rows(matrix)
    assert rows[4].recall is None
    precision = sklearn.metrics.precision_score(scores.labels, scores.predicted, average=None)
    assert [row.precision for row in rows] == pytest.approx(precision)
    assert all(row.low < row.recall < row.high for row in rows[:4])
    pairs = findings.confusions(matrix, 3)
    off = matrix[~np.eye(5, dtype=bool)]
    assert [count for *_, count in pairs] == sorted(off, reverse=True)[:3]
    assert all(matrix[a, b] == count and a != b for a, b, count in pairs)


def test_the_images_worth_a_look():
    assert findings.most_wrong(SCORES, 5).tolist() == [3, 1]
    assert findings.least_certain(SCORES, 2).tolist() == [2, 4]
    # The thresholds are 0.55 for the classes 0 and 1, and 0.22 for class 2.
    assert findings.doubted_labels(SCORES).tolist() == [3, 1]
    similar = make_scores([[0.3, 0.9], [0.8, 0.85]], [0, 0], probabilities=False)
    assert findings.most_wrong(similar, 1).tolist() == [0]


def resized(pixels, *sides):
    image = Image.fromarray(pixels)
    for side in sides:
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image)


def test_near_duplicates_are_found_and_others_are_not():
    random = np.random.default_rng(3)
    coarse = random.integers(0, 256, (30, 6, 6, 3), "uint8")
    images = np.stack([resized(one, 32) for one in coarse])
    noise = random.integers(-8, 9, images[1].shape)
    test = np.stack(
        [
            images[0],
            np.clip(images[1] + noise, 0, 255).astype("uint8"),
            images[20][:, ::-1],
            resized(images[21], 20, 32),
        ]
    )
    labels = np.zeros(30, int)

    found = duplicates.find(Split(images[1:], labels[1:]), Split(test, labels[:4]))

    assert sorted(found) == [(1, 0), (2, 19), (3, 20)]


def test_a_network_that_names_hardly_any_class_is_said_to_have_learnt_little():
    def said(predicted, labels):
        material = types.SimpleNamespace(scores=make_scores(np.eye(10)[predicted], labels))
        return "".join(_few_predicted(material))

    labels = np.arange(100) % 10
    assert said(np.full(100, 3), labels).startswith("All test images are taken for one class, c3:")
    mostly = np.where(np.arange(100) < 92, 3, 4)
    assert said(mostly, labels).startswith("92 % of the test images are taken for one class, c3:")
    assert said(labels // 3, labels).startswith("Only 4 of 10 classes are ever predicted:")
    assert said(labels, labels) == ""
    assert said(np.full(100, 3), np.where(np.arange(100) < 95, 3, 4)) == ""
