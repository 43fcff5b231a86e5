"""Whether a model's probabilities can be believed, and the temperature that mends them.

A temperature T divides what the softmax is taken of: log-probabilities, or similarities of
embeddings to classes. It changes no prediction (Guo et al., "On Calibration of Modern Neural
Networks", ICML 2017, section 4.2).
"""

from dataclasses import dataclass

import numpy as np

from utils import UserError

# Of fewer images, the temperature says more about them than about the model.
LEAST_IMAGES = 100
_LEAST, _GREATEST = 1e-4, 1e4
# float32 has no smaller normal number; a softmax gives 0 for what is smaller.
TINY = float(np.finfo("float32").tiny)


def is_temperature(value) -> bool:
    """Whether a value can be the temperature of a model."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and _LEAST <= value <= _GREATEST
    )


def logits(scores: np.ndarray, *, probabilities: bool) -> np.ndarray:
    """What a temperature divides, in float64: the logarithms of probabilities, or similarities.

    Args:
        scores: `(n, C)`, as `ImageClassifier.class_scores` gives them.
        probabilities: Whether they are probabilities.
    """
    scores = np.asarray(scores, np.float64)
    return np.log(np.maximum(scores, TINY)) if probabilities else scores


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities `(n, C)` of logits `(n, C)` that are divided by a temperature, in float64."""
    return np.exp(_log_softmax(logits, temperature))


def _log_softmax(logits, temperature):
    scaled = np.asarray(logits, np.float64) / temperature
    scaled = scaled - scaled.max(axis=-1, keepdims=True)
    return scaled - np.log(np.exp(scaled).sum(axis=-1, keepdims=True))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of the smallest negative log-likelihood, which is convex in 1/T.

    Args:
        logits: `(n, C)` of images that the model was not trained on (`logits`).
        labels: `(n,)` class indices.

    Raises:
        UserError: There are less than `LEAST_IMAGES`, all are right, or the scores say no more
            than chance: then no temperature is the best.
    """
    from scipy.optimize import minimize_scalar

    if len(labels) < LEAST_IMAGES:
        raise UserError(
            f"a temperature needs at least {LEAST_IMAGES} validation images, but there are "
            f"{len(labels)}"
        )
    own = np.arange(len(labels)), labels

    def loss(log_temperature):
        return -np.mean(_log_softmax(logits, np.exp(log_temperature))[own])

    bounds = np.log(_LEAST), np.log(_GREATEST)
    found = float(minimize_scalar(loss, bounds=bounds, options={"xatol": 1e-8}).x)
    if found - bounds[0] < 1e-3 or np.all(logits.argmax(axis=-1) == labels):
        raise UserError(
            "no temperature is the best, as every validation image is classified rightly"
        )
    if bounds[1] - found < 1e-3:
        raise UserError("no temperature is the best, as the scores say no more than chance")
    return float(np.exp(found))


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean of −log of the probability `(n, C)` of the right class, in nats."""
    own = np.asarray(probabilities, np.float64)[np.arange(len(labels)), labels]
    return float(-np.mean(np.log(np.maximum(own, TINY))))


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean squared distance of probabilities `(n, C)` to the right class, from 0 to 2.

    That is Brier's own definition (1950), the sum over all classes.
    """
    errors = np.array(probabilities, np.float64)
    errors[np.arange(len(labels)), labels] -= 1
    return float(np.mean(np.sum(errors**2, axis=1)))


@dataclass(frozen=True)
class Reliability:
    """How often a model is right, by its confidence, in bins of equally many images.

    The bands hold 90 % of what a model whose confidences are right would show on as many images:
    consistency bars after Bröcker & Smith, "Increasing the Reliability of Reliability Diagrams"
    (Weather and Forecasting 22, 2007), here with the confidences as they are.

    Attributes:
        images: `(bins,)` numbers of images.
        confidence: `(bins,)` mean probabilities of the predicted classes.
        accuracy: `(bins,)` shares of right predictions.
        low, high: `(bins,)` the bands of `accuracy`.
        error: The expected calibration error: the mean of |accuracy − confidence|, weighted by
            images.
        error_if_perfect: What 95 % of perfect models stay below: with few images that is far
            above 0.
    """

    images: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    low: np.ndarray
    high: np.ndarray
    error: float
    error_if_perfect: float


def reliability(
    confidences: np.ndarray, hits: np.ndarray, bins: int = 10, draws: int = 1000
) -> Reliability:
    """Compares confidences with what came of them.

    Args:
        confidences: `(n,)` probabilities of the predicted classes, n ≥ 1.
        hits: `(n,)` whether the predictions are right.
        bins: How many at most; each has 20 images or more, if there are as many.
        draws: Simulations of a perfect model.
    """
    order = np.argsort(confidences, kind="stable")
    bins = max(1, min(bins, len(order) // 20))
    parts = np.array_split(order, bins)
    images = np.array([len(part) for part in parts])
    starts = np.cumsum([0, *images[:-1]])
    confidences = np.asarray(confidences, np.float64)[order]

    def by_bin(values):
        return np.add.reduceat(values, starts, axis=-1, dtype=np.float64) / images

    def error(accuracy):
        return np.average(np.abs(accuracy - confidence), axis=-1, weights=images)

    confidence = by_bin(confidences)
    accuracy = by_bin(np.asarray(hits, bool)[order])
    random = np.random.default_rng(0)
    perfect = np.array([by_bin(random.random(len(order)) < confidences) for _ in range(draws)])
    low, high = np.quantile(perfect, [0.05, 0.95], axis=0)
    return Reliability(
        images,
        confidence,
        accuracy,
        low,
        high,
        float(error(accuracy)),
        float(np.quantile(error(perfect), 0.95)),
    )
