"""From the dissimilarities of classes to one vector per class.

Two targets exist: `unitsphere` and `approx_sim` aim at dot products of `1 − dissimilarity`,
`spheres` and `mds` at Euclidean distances of `dissimilarity`. Source: Barz and Denzler,
"Hierarchy-based Image Embeddings for Semantic Image Retrieval", WACV 2019, arXiv 1809.09924.
"""

from dataclasses import dataclass

import numpy as np

from utils import UserError

# Up to this many classes a factor has the same bits on every machine, and takes seconds.
_REPRODUCIBLE_CLASSES = 1024

# Float error of sums over some thousand classes whose similarities are of order 1.
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Solution:
    """Class embeddings, and how far they are from what was asked.

    Attributes:
        vectors: float64 `(classes, dimensions)`.
        target: What the vectors should reproduce: `"similarity"` or `"distance"`.
        max_deviation: Largest absolute deviation from the target, over all pairs.
        mean_deviation: Mean absolute deviation, over all pairs and the diagonal.
    """

    vectors: np.ndarray
    target: str
    max_deviation: float
    mean_deviation: float


def solve(
    method: str, dissimilarity: np.ndarray, num_dim: int | None = None, *, norm: bool = False
) -> Solution:
    """Class embeddings by the name of a method.

    Args:
        method: One of `METHODS`.
        dissimilarity: Symmetric, in [0, 1], with zeros on the diagonal, `(classes, classes)`.
        num_dim: Dimensions, for `approx_sim` and `mds`; by default the number of classes.
        norm: Scale the vectors to unit length; the deviation is measured afterwards.

    Raises:
        UserError: The method cannot reproduce these dissimilarities or have so many dimensions,
            or `norm` meets a zero vector.
    """
    if num_dim is None:
        vectors = METHODS[method](dissimilarity)
    elif method not in ("approx_sim", "mds"):
        raise UserError(f"--num_dim: {method} fixes the dimensions; use approx_sim or mds")
    elif not 1 <= num_dim <= len(dissimilarity):
        raise UserError(f"--num_dim {num_dim}: expected 1 to {len(dissimilarity)}, the classes")
    else:
        vectors = METHODS[method](dissimilarity, num_dim)
    if norm:
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not lengths.all():
            raise UserError(
                f"--norm: {method} puts class number {int(np.argmin(lengths)) + 1} at the origin, "
                "which has no direction; use unitsphere, or approx_sim with more dimensions"
            )
        vectors = vectors / lengths

    products = vectors @ vectors.T
    if method in ("unitsphere", "approx_sim"):
        target = "similarity"
        deviation = np.abs(products - (1 - dissimilarity))
    else:
        target = "distance"
        squares = np.diagonal(products)
        deviation = np.sqrt(np.maximum(squares[:, None] + squares - 2 * products, 0))
        np.fill_diagonal(deviation, 0)
        deviation = np.abs(deviation - dissimilarity)
    return Solution(vectors, target, float(deviation.max()), float(deviation.mean()))


def unitsphere(dissimilarity: np.ndarray) -> np.ndarray:
    """Unit vectors whose dot products are exactly the similarities (arXiv 1809.09924, §3.2).

    Class by class, each vector has one dimension more than the one before: the lower Cholesky
    factor of the similarity matrix.

    Args:
        dissimilarity: `(classes, classes)` in [0, 1].

    Returns:
        Lower-triangular `(classes, classes)`, diagonal not negative.

    Raises:
        UserError: The similarity matrix is not positive semi-definite.
    """
    return _cholesky(1 - dissimilarity, "similarity matrix")


def approx_sim(dissimilarity: np.ndarray, num_dim: int | None = None) -> np.ndarray:
    """Vectors whose dot products are the nearest to the similarities, in least squares.

    Args:
        dissimilarity: `(classes, classes)` in [0, 1].
        num_dim: Dimensions; by default the number of classes.

    Returns:
        `(classes, num_dim)`, dimensions in descending order of their eigenvalue. What the
        similarity matrix has of negative eigenvalues no vectors can have: it is left out.
    """
    return _principal_axes(1 - dissimilarity, num_dim)


def spheres(dissimilarity: np.ndarray) -> np.ndarray:
    """Vectors whose Euclidean distances are exactly the dissimilarities (arXiv 1809.09924, §3.1).

    The first class is the origin, and each further one lies where the spheres around all classes
    before it meet. With the first class as origin the dot products follow from the distances, so
    this is a Cholesky factor again.

    Args:
        dissimilarity: `(classes, classes)` in [0, 1].

    Returns:
        `(classes, classes - 1)`, first row zero, the others lower-triangular.

    Raises:
        UserError: The spheres do not meet: no points have these distances.
    """
    if len(dissimilarity) < 2:
        raise UserError("spheres needs at least two classes")
    squares = dissimilarity**2
    products = (squares[1:, :1] + squares[:1, 1:] - squares[1:, 1:]) / 2
    vectors = np.zeros((len(squares), max(len(squares) - 1, 1)))
    vectors[1:] = _cholesky(products, "matrix of distances")
    return vectors


def mds(dissimilarity: np.ndarray, num_dim: int | None = None) -> np.ndarray:
    """Vectors with about the dissimilarities as Euclidean distances (Torgerson's classical MDS).

    Args:
        dissimilarity: `(classes, classes)` in [0, 1].
        num_dim: Dimensions; by default the number of classes.

    Returns:
        `(classes, num_dim)` with zero mean, dimensions in descending order of their variance.
    """
    squares = dissimilarity**2
    means = squares.mean(axis=0)
    return _principal_axes((means[:, None] + means - squares - means.mean()) / 2, num_dim)


METHODS = {"unitsphere": unitsphere, "approx_sim": approx_sim, "spheres": spheres, "mds": mds}


def _cholesky(matrix: np.ndarray, what: str) -> np.ndarray:
    """The lower Cholesky factor of a positive semi-definite matrix.

    Raises:
        UserError: It is not positive semi-definite.
    """
    if len(matrix) > _REPRODUCIBLE_CLASSES:
        try:
            return np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            # Either singular, which the slow way below can do, or hopeless.
            _check_semidefinite(matrix, what)
    # LAPACK's sums have another order, and so other last bits, on every processor. Here every
    # operation is elementwise and correctly rounded, so the files made from it are the same
    # everywhere.
    rest = np.array(matrix, np.float64)
    factor = np.zeros_like(rest)
    for i in range(len(rest)):
        pivot, column = rest[i, i], rest[i + 1 :, i]
        if pivot > _TOLERANCE:
            factor[i, i] = np.sqrt(pivot)
            factor[i + 1 :, i] = column / factor[i, i]
            tail = factor[i + 1 :, i]
            rest[i + 1 :, i + 1 :] -= tail[:, None] * tail
        elif pivot < -_TOLERANCE or (np.abs(column) > np.sqrt(_TOLERANCE)).any():
            _check_semidefinite(matrix, what)
    return factor


def _check_semidefinite(matrix: np.ndarray, what: str) -> None:
    lowest = np.linalg.eigvalsh(matrix)[0]
    if lowest < -_TOLERANCE:
        raise UserError(
            f"the {what} is not positive semi-definite: its lowest eigenvalue is {lowest:.3g}, so "
            "no vectors reproduce it exactly; use compute_class_embedding.py with --method "
            "approx_sim or mds, which give the nearest"
        )


def _principal_axes(matrix: np.ndarray, num_dim: int | None) -> np.ndarray:
    """The factor `V` of `num_dim` columns with `V Vᵀ` nearest to a symmetric matrix."""
    values, vectors = np.linalg.eigh(matrix)
    leading = np.argsort(-values, kind="stable")[:num_dim]
    vectors = vectors[:, leading]
    # An eigenvector's sign is arbitrary; this makes it the same on every run.
    largest = np.abs(vectors).argmax(axis=0)
    signs = np.where(vectors[largest, np.arange(len(leading))] < 0, -1.0, 1.0)
    return vectors * signs * np.sqrt(np.maximum(values[leading], 0))
