"""Content-based image retrieval, judged by class and by class hierarchy.

Every image is the query once, and all others are ranked by their distance to it. Source: Barz and
Denzler, "Hierarchy-based Image Embeddings for Semantic Image Retrieval", WACV 2019,
arXiv 1809.09924; hierarchical precision from Deng, Berg and Fei-Fei, CVPR 2011.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from utils import UserError

_KS = (1, 10, 50, 100, 250)
RECALLS = np.linspace(0, 1, 101)
_BLOCK_BYTES = 2**28  # of the about eight float32 matrices of queries × images alive at a time


@dataclass(frozen=True)
class Retrieval:
    """How well images are found.

    Attributes:
        scores: The scores by name.
        hierarchical_precision: HP@k for k from 1, by the name of the class similarity.
        precision: Mean precision at each recall of `RECALLS`: of a query the best precision at that
            recall or a higher one.
    """

    scores: dict[str, float]
    hierarchical_precision: dict[str, np.ndarray]
    precision: np.ndarray


def retrieve(
    features: np.ndarray,
    labels: np.ndarray,
    similarities: Mapping[str, np.ndarray],
    *,
    norm: bool = False,
    clip_ahp: int = 250,
) -> Retrieval:
    """Mean average precision, and hierarchical precision by several class similarities.

    - `mAP`: mean over all queries of the average precision, where images of the query's class are
      relevant. Queries whose class has no other image are left out.
    - `HP@k (name)`: mean of the summed similarity of the first k images' classes to the query's,
      divided by the largest such sum that k images can have; k is limited to the images there are.
      Queries to which no other image has any similarity are left out.
    - `mAHP@250 (name)`: area under the curve of HP@k from 1 to 250 (`clip_ahp`) by the trapezoidal
      rule, divided by its width 249, so that a perfect ranking has 1. (The original divides by
      250.)

    Images at the same distance are ranked in their own order.

    Args:
        features: float32 `(images, dimensions)`.
        labels: Index of each image's class, `(images,)`.
        similarities: Class similarities in [0, 1], 1 on the diagonal, each `(classes, classes)`.
        norm: Rank by cosine similarity instead of Euclidean distance.
        clip_ahp: Up to which k the curve of HP@k counts for mAHP.

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
    cutoff = min(max(clip_ahp, *_KS), others)
    ranks = np.arange(1.0, others + 1)
    best = {
        name: _best_sums(similarity, labels, cutoff) for name, similarity in similarities.items()
    }
    precision_sum, queries, by_recall = 0.0, 0, np.zeros(len(RECALLS))
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
        for row in relevant[total > 0]:
            by_recall += _interpolated_precision(np.flatnonzero(row) + 1)
        for name, similarity in similarities.items():
            possible = best[name][own]
            known = possible[:, 0] > 0
            gains = similarity[own[known, None], ranked[known, :cutoff]]
            curves[name] += (np.cumsum(gains, axis=1) / possible[known]).sum(axis=0)
            judged[name] += int(known.sum())

    scores = {"mAP": precision_sum / max(queries, 1)}
    for name, curve in curves.items():
        curve /= max(judged[name], 1)
        scores |= {f"HP@{k} ({name})": float(curve[min(k, cutoff) - 1]) for k in _KS}
        counted = curve[:clip_ahp]
        area = np.trapezoid(counted) / (len(counted) - 1) if len(counted) > 1 else counted[0]
        scores[f"mAHP@{clip_ahp} ({name})"] = float(area)
    return Retrieval(scores, curves, by_recall / max(queries, 1))


def _interpolated_precision(found: np.ndarray) -> np.ndarray:
    """A query's precision at each of `RECALLS`, from the ranks of its relevant images, from 1."""
    precision = np.arange(1, len(found) + 1) / found
    best = np.maximum.accumulate(precision[::-1])[::-1]
    # 1e-9, as 0.07 times 100 is a little more than 7.
    needed = np.ceil(RECALLS * len(found) - 1e-9).astype(int)
    return best[np.maximum(needed, 1) - 1]


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
