"""How good and how bad predictions are by a class hierarchy."""

import numpy as np

_TOP = (1, 5, 20)


def hierarchical_scores(
    scores: np.ndarray,
    labels: np.ndarray,
    dissimilarity: np.ndarray,
    height: int,
    *,
    probabilities: bool = False,
) -> dict[str, float]:
    """Scores of a classifier that count how far off a wrong class is.

    - `hierarchical_accuracy`: mean of `1 − d(true, predicted)`.
    - `mistake_severity`: mean height of the LCS of the true and the predicted class, over the
      wrong predictions; 0 where none is wrong (Bertinetto et al., CVPR 2020, arXiv 1912.09393).
    - `hierarchical_distance@k`: mean height of the LCS of the true class and each of the k best
      classes, for k = 1, 5, 20 where there are as many classes (the same source).

    Args:
        scores: Higher is more likely, `(samples, classes)`.
        labels: Index of each sample's true class, `(samples,)`.
        dissimilarity: `Hierarchy.dissimilarity` of the classes, `(classes, classes)` in [0, 1].
        height: `Hierarchy.height`, which turns dissimilarities into heights, in edges.
        probabilities: The scores are class probabilities. Then everything is also given for the
            decisions of least expected dissimilarity, with their accuracy; names begin with
            `crm_` (see `conditional_risk`).

    Returns:
        The scores by name.
    """
    result = _scores(scores, labels, dissimilarity, height)
    if probabilities:
        decisions = -conditional_risk(scores, dissimilarity)
        result["crm_accuracy"] = float(np.mean(decisions.argmax(axis=1) == labels))
        reranked = _scores(decisions, labels, dissimilarity, height)
        result |= {f"crm_{name}": value for name, value in reranked.items()}
    return result


def conditional_risk(probabilities: np.ndarray, dissimilarity: np.ndarray) -> np.ndarray:
    """The expected dissimilarity of each decision: the lowest is the best one.

    Source: Karthik et al., "No Cost Likelihood Manipulation at Test Time for Making Better
    Mistakes in Deep Networks", ICLR 2021, arXiv 2104.00795.

    Args:
        probabilities: `(samples, classes)`.
        dissimilarity: Cost of deciding for one class where another is true, symmetric,
            `(classes, classes)`.

    Returns:
        `R[n, k] = Σⱼ p[n, j] · d[j, k]`, float64 `(samples, classes)`.
    """
    return np.asarray(probabilities, np.float64) @ dissimilarity


def _scores(
    scores: np.ndarray, labels: np.ndarray, dissimilarity: np.ndarray, height: int
) -> dict[str, float]:
    labels = np.asarray(labels)
    best = np.argsort(-np.asarray(scores), axis=1, kind="stable")[:, : max(_TOP)]
    distances = dissimilarity[labels[:, None], best]
    wrong = best[:, 0] != labels
    result = {
        "hierarchical_accuracy": float(1 - distances[:, 0].mean()),
        "mistake_severity": float(height * distances[wrong, 0].mean()) if wrong.any() else 0.0,
    }
    for k in _TOP:
        if k <= best.shape[1]:
            result[f"hierarchical_distance@{k}"] = float(height * distances[:, :k].mean())
    return result
