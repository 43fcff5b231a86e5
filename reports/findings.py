"""What the scores of the test images say: classes, confusions, and the images worth a look."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.calibration import TINY
from training.reporting.evaluation import wilson_interval


@dataclass
class Scores:
    """What a model says of the test images.

    Attributes:
        labels: `(n,)` class indices.
        values: `(n, C)`, the greatest is the prediction.
        class_names: Names of the C classes.
        image_names: Names of the n images.
        probabilities: Whether the values are probabilities.
        from_similarities: Whether they are so by a temperature alone.
        whole: Whether all values are known; otherwise those of the best classes alone, and the
            others are the least there is.
    """

    labels: np.ndarray
    values: np.ndarray
    class_names: Sequence[str]
    image_names: Sequence[str]
    probabilities: bool
    whole: bool = True
    from_similarities: bool = False

    @property
    def predicted(self) -> np.ndarray:
        """`(n,)` class indices."""
        return self.values.argmax(axis=1)

    @property
    def hits(self) -> np.ndarray:
        """`(n,)` whether the prediction is right."""
        return self.predicted == self.labels

    @property
    def own(self) -> np.ndarray:
        """`(n,)` the values of the images' labels."""
        return self.values[np.arange(len(self.labels)), self.labels]


@dataclass(frozen=True)
class ClassRow:
    """What becomes of a class's test images.

    Attributes:
        index: Of the class.
        images: Its test images.
        recall: The share of them that is recognised; `None` without images.
        low, high: The 95 % interval of the recall, by Wilson's score.
        precision: The share that is right of what is taken for this class; `None` if nothing is.
        mistaken_for: The class that most of the others are taken for, and how many.
    """

    index: int
    images: int
    recall: float | None
    low: float | None
    high: float | None
    precision: float | None
    mistaken_for: tuple[int, int] | None


def confusion_matrix(scores: Scores) -> np.ndarray:
    """How many images of each class (rows) are taken for each class (columns), `(C, C)`."""
    count = len(scores.class_names)
    pairs = scores.labels * count + scores.predicted
    return np.bincount(pairs, minlength=count**2).reshape(count, count)


def class_rows(matrix: np.ndarray) -> list[ClassRow]:
    """A row for each class of a `confusion_matrix`."""
    rows = []
    taken_for = matrix.sum(axis=0)
    for i, counts in enumerate(matrix):
        images, right = int(counts.sum()), int(counts[i])
        recall = low = high = mistaken = None
        if images:
            recall = right / images
            low, high = wilson_interval(right, images)
        wrong = np.where(np.arange(len(counts)) == i, 0, counts)
        if wrong.any():
            mistaken = int(wrong.argmax()), int(wrong.max())
        precision = right / int(taken_for[i]) if taken_for[i] else None
        rows.append(ClassRow(i, images, recall, low, high, precision, mistaken))
    return rows


def confusions(matrix: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    """The most frequent confusions of a `confusion_matrix`: `(true, predicted, images)`."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [(int(a), int(b), int(wrong[a, b])) for a, b in pairs if wrong[a, b]]


def most_wrong(scores: Scores, most: int) -> np.ndarray:
    """The wrong images of the greatest loss, or of the greatest lack of similarity, worst first."""
    wrong = np.flatnonzero(~scores.hits)
    own, best = scores.own, scores.values.max(axis=1)
    badness = -np.log(np.maximum(own, TINY)) if scores.probabilities else best - own
    return wrong[np.argsort(-badness[wrong], kind="stable")][:most]


def least_certain(scores: Scores, most: int) -> np.ndarray:
    """The images whose two best classes are the closest, the closest first."""
    two = np.partition(scores.values, -2, axis=1)[:, -2:]
    return np.argsort(two[:, 1] - two[:, 0], kind="stable")[:most]


def doubted_labels(scores: Scores) -> np.ndarray:
    """The images whose label the model doubts, the greatest doubt first.

    For another class than its own such an image scores as that class's own images do on average,
    or more: the off-diagonal part of the confident joint (Northcutt et al., "Confident Learning",
    JAIR 2021, section 3.1). Many of them are mistakes of the model and not of who labelled them.
    """
    values, labels = scores.values, scores.labels
    thresholds = np.full(values.shape[1], np.inf)
    for i in np.unique(labels):
        thresholds[i] = values[labels == i, i].mean()
    confident = np.where(values >= thresholds, values, -np.inf)
    best = confident.argmax(axis=1)
    rows = np.arange(len(labels))
    doubted = np.flatnonzero(np.isfinite(confident[rows, best]) & (best != labels))
    margin = values[doubted, best[doubted]] - scores.own[doubted]
    return doubted[np.argsort(-margin, kind="stable")]
