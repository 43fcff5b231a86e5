import numpy as np
import pytest

from embeddings import solvers
from embeddings.hierarchy import Hierarchy
from utils import UserError

# No triangle: the third side is longer than the two others.
IMPOSSIBLE = np.array([[0, 0.1, 0.9], [0.1, 0, 0.1], [0.9, 0.1, 0]])


def balanced_tree(branching, levels):
    nodes = [(), *((i,) for i in range(branching))]
    edges = []
    for level in range(levels):
        parents = [node for node in nodes if len(node) == level]
        for parent in parents:
            edges += [(str(parent), str((*parent, i))) for i in range(branching)]
            nodes += [(*parent, i) for i in range(branching) if level]
    hierarchy = Hierarchy(edges)
    return hierarchy.dissimilarity(hierarchy.leaves)


def random_dissimilarity(classes=40, seed=0):
    rng = np.random.default_rng(seed)
    edges = [(0, 1), (0, 2)] + [(int(rng.integers(node)), node) for node in range(3, classes)]
    hierarchy = Hierarchy(edges)
    return hierarchy.dissimilarity(hierarchy.leaves)


def row_by_row(similarity):
    """The construction of arXiv 1809.09924, §3.2, as it stands there."""
    vectors = np.zeros_like(similarity)
    vectors[0, 0] = 1
    for i in range(1, len(similarity)):
        vectors[i, :i] = np.linalg.solve(vectors[:i, :i], similarity[i, :i])
        vectors[i, i] = np.sqrt(1 - (vectors[i, :i] ** 2).sum())
    return vectors


def test_unitsphere_is_the_papers_construction():
    dissimilarity = random_dissimilarity()
    vectors = solvers.unitsphere(dissimilarity)
    np.testing.assert_allclose(vectors, row_by_row(1 - dissimilarity), atol=1e-12)
    np.testing.assert_array_equal(vectors, np.tril(vectors))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-14)


def test_unitsphere_of_a_balanced_binary_tree_in_closed_form():
    # Leaves 0 1 | 2 3 of a tree of height 2: s = ½ within a pair, 0 across.
    root = np.sqrt(3) / 2
    expected = [[1, 0, 0, 0], [0.5, root, 0, 0], [0, 0, 1, 0], [0, 0, 0.5, root]]
    np.testing.assert_allclose(solvers.unitsphere(balanced_tree(2, 2)), expected, atol=1e-15)


def test_unitsphere_of_a_star_is_one_hot():
    np.testing.assert_array_equal(solvers.unitsphere(balanced_tree(5, 1)), np.eye(5))


def test_a_balanced_trees_similarity_has_the_eigenvalues_of_its_levels():
    # k-ary, L levels: the eigenvalue of the nodes of height h is Σ_{j<=h-1} k^j / L.
    branching, levels = 3, 3
    dissimilarity = balanced_tree(branching, levels)
    variances = (solvers.approx_sim(dissimilarity) ** 2).sum(axis=0)
    sums = [sum(branching**j for j in range(h)) / levels for h in (3, 2, 1)]
    multiplicities = [3, 6, 18]
    np.testing.assert_allclose(variances, np.repeat(sums, multiplicities), atol=1e-12)


@pytest.mark.parametrize("method", solvers.METHODS)
def test_every_method_reaches_its_target_with_all_dimensions(method):
    dissimilarity = random_dissimilarity()
    solution = solvers.solve(method, dissimilarity)
    assert solution.max_deviation < 1e-7
    assert solution.mean_deviation <= solution.max_deviation
    vectors = solution.vectors
    if solution.target == "similarity":
        np.testing.assert_allclose(vectors @ vectors.T, 1 - dissimilarity, atol=1e-12)
    else:
        distances = np.linalg.norm(vectors[:, None] - vectors, axis=2)
        np.testing.assert_allclose(distances, dissimilarity, atol=1e-7)


def test_the_reported_deviation_is_that_of_the_vectors():
    dissimilarity = random_dissimilarity()
    solution = solvers.solve("approx_sim", dissimilarity, 5)
    assert solution.vectors.shape == (len(dissimilarity), 5)
    deviation = np.abs(solution.vectors @ solution.vectors.T - (1 - dissimilarity))
    assert solution.max_deviation == pytest.approx(deviation.max())
    assert solution.mean_deviation == pytest.approx(deviation.mean())
    solution = solvers.solve("mds", dissimilarity, 2)
    distances = np.linalg.norm(solution.vectors[:, None] - solution.vectors, axis=2)
    deviation = np.abs(distances - dissimilarity)
    assert solution.max_deviation == pytest.approx(deviation.max())
    assert solution.mean_deviation == pytest.approx(deviation.mean())


def test_approx_sim_is_the_best_of_its_rank():
    similarity = 1 - random_dissimilarity()
    # Eckart and Young: the least error of rank 7 is what the other singular values hold.
    least = np.linalg.norm(np.linalg.svd(similarity, compute_uv=False)[7:])
    vectors = solvers.approx_sim(1 - similarity, 7)
    assert vectors.shape[1] == 7
    assert np.linalg.norm(vectors @ vectors.T - similarity) == pytest.approx(least)


def test_norm_scales_to_the_unit_sphere_and_is_counted_in_the_deviation():
    dissimilarity = balanced_tree(3, 3)
    plain = solvers.solve("approx_sim", dissimilarity, 9)
    scaled = solvers.solve("approx_sim", dissimilarity, 9, norm=True)
    lengths = np.linalg.norm(plain.vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(scaled.vectors, plain.vectors / lengths)
    assert scaled.mean_deviation != pytest.approx(plain.mean_deviation)
    with pytest.raises(UserError, match="class number 1 at the origin"):
        solvers.solve("spheres", dissimilarity, norm=True)


def test_what_is_not_semidefinite_is_refused_by_how_much():
    lowest = np.linalg.eigvalsh(1 - IMPOSSIBLE)[0]
    assert lowest < -0.1
    with pytest.raises(UserError, match=f"lowest eigenvalue is {lowest:.3g}.*approx_sim or mds"):
        solvers.solve("unitsphere", IMPOSSIBLE)
    with pytest.raises(UserError, match="not positive semi-definite"):
        solvers.solve("spheres", IMPOSSIBLE)
    assert solvers.solve("approx_sim", IMPOSSIBLE).max_deviation > 0.1
    assert solvers.solve("mds", IMPOSSIBLE).max_deviation > 0.1


def test_equal_classes_are_semidefinite_and_allowed():
    dissimilarity = np.array([[0, 0, 1], [0, 0, 1], [1, 1, 0.0]])
    vectors = solvers.unitsphere(dissimilarity)
    np.testing.assert_array_equal(vectors, [[1, 0, 0], [1, 0, 0], [0, 0, 1]])


def test_many_classes_take_lapack_and_give_the_same(monkeypatch):
    dissimilarity = random_dissimilarity(60)
    elementwise = solvers.unitsphere(dissimilarity)
    monkeypatch.setattr(solvers, "_REPRODUCIBLE_CLASSES", 1)
    np.testing.assert_allclose(solvers.unitsphere(dissimilarity), elementwise, atol=1e-12)
    with pytest.raises(UserError, match="not positive semi-definite"):
        solvers.unitsphere(IMPOSSIBLE)
    singular = np.array([[0, 0], [0, 0.0]])
    np.testing.assert_array_equal(solvers.unitsphere(singular), [[1, 0], [1, 0]])


@pytest.mark.parametrize(
    ("method", "num_dim", "message"),
    [
        ("unitsphere", 5, "--num_dim: unitsphere fixes the dimensions"),
        ("mds", 0, "--num_dim 0: expected 1 to"),
        ("approx_sim", 1000, "--num_dim 1000: expected 1 to"),
    ],
)
def test_impossible_dimensions_are_refused(method, num_dim, message):
    with pytest.raises(UserError, match=message):
        solvers.solve(method, random_dissimilarity(), num_dim)
