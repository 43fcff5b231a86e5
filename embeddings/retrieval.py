"""Content-based image retrieval, judged by class and by class hierarchy.

Every image is the query once, and all others are ranked by their distance to it. Source: Barz and
Denzler, "Hierarchy-based Image Embeddings for Semantic Image Retrieval", WACV 2019,
arXiv 1809.09924; hierarchical precision from Deng, Berg and Fei-Fei, CVPR 2011.
"""

from collections.abc import Mapping

import numpy as np

from utils import UserError

_KS = (1, 10, 50, 100, 250)
_CUTOFF = 250
_BLOCK_BYTES = 2**28  # of the about eight float32 matrices of queries × images alive at a time


def retrieval_scores(
    features: np.ndarray,
    labels: np.ndarray,
    similarities: Mapping[str, np.ndarray],
    *,
    norm: bool = False,
) -> dict[str, float]:
    """Mean average precision, and hierarchical precision by several class similarities.

    - `mAP`: mean over all queries of the average precision, where images of the query's class are
      relevant. Queries whose class has no other image are left out.
    - `HP@k (name)`: mean of the summed similarity of the first k images' classes to the query's,
      divided by the largest such sum that k images can have; k is limited to the images there are.
      Queries to which no other image has any similarity are left out.
    - `mAHP@250 (name)`: area under the curve of HP@k from 1 to 250 by the trapezoidal rule, divided
      by its width 249, so that a perfect ranking has 1. (The original divides by 250.)

    Images at the same distance are ranked in their own order.

    Args:
        features: float32 `(images, dimensions)`.
        labels: Index of each image's class, `(images,)`.
        similarities: Class similarities in [0, 1], 1 on the diagonal, each `(classes, classes)`.
        norm: Rank by cosine similarity instead of Euclidean distance.

    Returns:
        The scores by name.

    Raises:
        UserError: There are fewer than two images, or features are not finite.
    """
    import numexpr

    features = np.ascontiguousarray(features, np.float32)
    labels = np.asarray(labels)
    if len(features) < 2:
        raise UserError("retrieval needs at least two images")
    if not np.isfinite(features).all():
        raise UserError("the features have values that are not finite")
    if norm:
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        features = features / np.where(lengths > 0, lengths, 1)
    squares = np.einsum("ij,ij->i", features, features)
    if not np.isfinite(squares).all():
        raise UserError("the features are too large for float32 distances; scale them, or --norm")

    others = len(features) - 1
    cutoff = min(_CUTOFF, others)
    ranks = np.arange(1.0, others + 1)
    best = {
        name: _best_sums(similarity, labels, cutoff) for name, similarity in similarities.items()
    }
    precision_sum, queries = 0.0, 0
    curves = {name: np.zeros(cutoff) for name in similarities}
    judged = dict.fromkeys(similarities, 0)
    rows = max(1, _BLOCK_BYTES // (8 * 4 * len(features)))
    for start in range(0, len(features), rows):
        block = slice(start, start + rows)
        own = labels[block]
        # The query's own square would only shift its row.
        distances = features[block] @ features.T
        numexpr.evaluate("s - 2 * d", {"s": squares, "d": distances}, out=distances)
        distances[np.arange(len(own)), start + np.arange(len(own))] = -np.inf
        ranked = labels[np.argsort(distances, axis=1, kind="stable")[:, 1:]]
        del distances

        relevant = ranked == own[:, None]
        hits = np.cumsum(relevant, axis=1, dtype=np.int32)
        total = hits[:, -1]
        summed = numexpr.evaluate(
            "sum(where(r, h / k, 0), axis=1)", {"r": relevant, "h": hits, "k": ranks}
        )
        precision_sum += float((summed[total > 0] / total[total > 0]).sum())
        queries += int((total > 0).sum())
        for name, similarity in similarities.items():
            possible = best[name][own]
            known = possible[:, 0] > 0
            gains = similarity[own[known, None], ranked[known, :cutoff]]
            curves[name] += (np.cumsum(gains, axis=1) / possible[known]).sum(axis=0)
            judged[name] += int(known.sum())

    result = {"mAP": precision_sum / queries if queries else 0.0}
    for name, curve in curves.items():
        curve /= max(judged[name], 1)
        result |= {f"HP@{k} ({name})": float(curve[min(k, cutoff) - 1]) for k in _KS}
        area = np.trapezoid(curve) / (cutoff - 1) if cutoff > 1 else curve[0]
        result[f"mAHP@{_CUTOFF} ({name})"] = float(area)
    return result


def _best_sums(similarity: np.ndarray, labels: np.ndarray, cutoff: int) -> np.ndarray:
    """For a query of each class, the largest sum of similarities that k other images can have.

    Returns:
        float64 `(classes, cutoff)` for k from 1 to `cutoff`.
    """
    counts = np.bincount(labels, minlength=len(similarity))
    best = np.ones((len(similarity), cutoff))
    for own in np.flatnonzero(counts):
        order = np.argsort(-similarity[own], kind="stable")
        available = counts.copy()
        available[own] -= 1
        reached = np.cumsum(np.minimum(available[order], cutoff))
        last = np.searchsorted(reached, cutoff) + 1
        nearest = order[:last]
        best[own] = np.repeat(similarity[own, nearest], available[nearest])[:cutoff]
    return np.cumsum(best, axis=1)
