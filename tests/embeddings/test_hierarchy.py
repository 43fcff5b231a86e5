import itertools
import random

import numpy as np
import pytest

from embeddings.hierarchy import Hierarchy
from embeddings.hierarchy_files import format_tree, read_hierarchy
from utils import UserError

# 0 ─┬─ 1 ─┬─ 3
#    │     └─ 4 ── 5
#    └─ 2 ── 6
TREE = [(0, 1), (0, 2), (1, 3), (1, 4), (4, 5), (2, 6)]


def write(tmp_path, text):
    path = tmp_path / "h.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_heights_and_depths_of_a_small_tree():
    tree = Hierarchy(TREE)
    assert (tree.root, tree.height, tree.leaves, tree.is_tree) == (0, 3, [3, 5, 6], True)
    assert tree.heights == {0: 3, 1: 2, 2: 1, 3: 0, 4: 1, 5: 0, 6: 0}
    assert tree.depths == {0: 1, 1: 2, 2: 2, 3: 3, 4: 3, 5: 4, 6: 3}


def test_similarities_of_a_small_tree_by_hand():
    tree = Hierarchy(TREE)
    np.testing.assert_array_equal(tree.lcs_heights([3, 5, 6]), [[0, 2, 3], [2, 0, 3], [3, 3, 0]])
    np.testing.assert_array_equal(
        tree.dissimilarity([6, 3, 5]), np.array([[0, 3, 3], [3, 0, 2], [3, 2, 0]]) / 3
    )
    # lcs(3, 5) = 1 at depth 2, one and two steps above them; lcs with 6 is the root at depth 1.
    np.testing.assert_allclose(
        tree.wu_palmer([3, 5, 6]), [[1, 4 / 7, 2 / 6], [4 / 7, 1, 2 / 7], [2 / 6, 2 / 7, 1]]
    )


def test_an_inner_node_as_class_acts_as_one_more_leaf_below_it():
    tree = Hierarchy(TREE)
    with_leaf = Hierarchy([*TREE, (1, "1, not specified")])
    np.testing.assert_array_equal(
        tree.dissimilarity([1, 3, 5, 6]),
        with_leaf.dissimilarity(["1, not specified", 3, 5, 6]),
    )


def test_a_graph_with_two_parents_by_hand():
    #      r
    #    /   \
    #   a     b
    #  / \   / \
    # x   \ c   z
    #      y        c is below b; y below a and c
    graph = Hierarchy([("r", "a"), ("r", "b"), ("a", "x"), ("a", "y"), ("b", "c"), ("c", "y"),
                       ("b", "z")])  # fmt: skip
    assert not graph.is_tree
    assert graph.heights == {"r": 3, "a": 1, "b": 2, "c": 1, "x": 0, "y": 0, "z": 0}
    assert graph.depths["y"] == 4  # by the longest way, r b c y
    assert graph.lcs("x", "y") == "a"
    assert graph.lcs("y", "z") == "b"
    np.testing.assert_array_equal(
        graph.lcs_heights(["x", "y", "z"]), [[0, 1, 3], [1, 0, 2], [3, 2, 0]]
    )
    # y is two steps below b by the shortest way, z one; b has depth 2.
    assert graph.wu_palmer(["y", "z"])[0, 1] == pytest.approx(4 / (4 + 2 + 1))


def test_of_equally_deep_common_subsumers_the_lower_one_counts():
    # x and y are below both p and q, which are equally deep; q has a longer way down.
    edges = [("r", "p"), ("r", "q"), *itertools.product("pq", "xy"), ("q", "s"), ("s", "t")]
    rng = random.Random(0)
    for _ in range(20):
        graph = Hierarchy(rng.sample(edges, len(edges)))
        assert graph.lcs("x", "y") == "p"
        assert graph.lcs_heights(["x", "y"])[0, 1] == 1


def brute_force(parents, heights, depths, first, second):
    def above(node):
        found = {node}
        for parent in parents[node]:
            found |= above(parent)
        return found

    common = above(first) & above(second)
    deepest = max(depths[node] for node in common)
    return min(heights[node] for node in common if depths[node] == deepest)


@pytest.mark.parametrize("max_parents", [1, 3])
def test_pairwise_heights_match_a_direct_search_on_random_graphs(max_parents):
    rng = random.Random(0)
    for size in (2, 9, 40):
        parents = {0: []} | {
            node: rng.sample(range(node), min(node, rng.randint(1, max_parents)))
            for node in range(1, size)
        }
        graph = Hierarchy((p, node) for node in parents for p in parents[node])
        classes = rng.sample(range(size), (size + 1) // 2)  # leaves and inner nodes, any order
        heights = graph.lcs_heights(classes)
        for i, j in itertools.product(range(len(classes)), repeat=2):
            direct = brute_force(parents, graph.heights, graph.depths, classes[i], classes[j])
            assert heights[i, j] == (direct if i != j else 0)
            assert graph.heights[graph.lcs(classes[i], classes[j])] == direct


def test_a_deep_chain_does_not_exhaust_the_stack(tmp_path):
    chain = Hierarchy([*itertools.pairwise(range(1000)), (0, -1)])
    assert chain.lcs_heights([999, -1])[0, 1] == 999
    path = write(tmp_path, format_tree(chain))
    assert read_hierarchy(path).digest() == chain.digest()


def test_reads_both_directions_and_both_kinds_of_ids(tmp_path):
    parent_child = write(tmp_path, "# a comment\n0 1\n\n0\t2\n1 3\n1 4\n0 1\n")
    expected = Hierarchy([(0, 1), (0, 2), (1, 3), (1, 4)])
    assert read_hierarchy(parent_child).digest() == expected.digest()
    assert read_hierarchy(parent_child, is_a=None).digest() == expected.digest()
    assert read_hierarchy(parent_child, str_ids=True).leaves == ["2", "3", "4"]
    is_a = write(tmp_path, "1 0\n2 0\n3 1\n4 1\n")
    assert read_hierarchy(is_a, is_a=True).digest() == expected.digest()
    assert read_hierarchy(is_a, is_a=None).digest() == expected.digest()


@pytest.mark.parametrize("indent", ["  ", "    ", "\t"])
def test_reads_an_indented_tree(tmp_path, indent):
    lines = ["animal", "{}bird of prey", "{}{}7: Red Kite (Milvus: milvus)", "{}3: a dog"]
    text = "\n".join(line.replace("{}", indent) for line in lines)
    tree = read_hierarchy(write(tmp_path, text))
    assert tree.leaves == [3, 7]
    assert tree.names[7] == "Red Kite (Milvus: milvus)"
    assert tree.lcs(7, "bird of prey") == "bird of prey"
    assert tree.dissimilarity([3, 7])[0, 1] == 1
    assert read_hierarchy(write(tmp_path, text), str_ids=True).leaves == ["3", "7"]


def test_the_indented_form_survives_a_round_trip(tmp_path):
    tree = Hierarchy(TREE, {3: "three", 0: "the root"})
    again = read_hierarchy(write(tmp_path, format_tree(tree)))
    assert again.names[3] == "three"
    assert again.leaves[0] == 3
    np.testing.assert_array_equal(again.dissimilarity(tree.leaves), tree.dissimilarity(tree.leaves))
    with pytest.raises(UserError, match="only a tree"):
        format_tree(Hierarchy([(0, 1), (0, 2), (1, 3), (2, 3)]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty hierarchy"),
        ("# only a comment\n", "empty hierarchy"),
        ("0 1\n1 2\n2 1\n", "cycle: 1 → 2 → 1"),
        ("0 1\n5 5\n", "cycle: 5 → 5"),
        ("0 1\n2 3\n", r"2 roots \(0, 2\).*--is_a"),
        ("0 1\n1 2 3\n", "line 2: expected two ids"),
        ("0 1\n1\n", "line 2: expected two ids"),
        ("0 1\n1 x\n", "line 2: the id 'x' is not an integer; give --str_ids"),
        ("a\n b\n a\n", "line 3: a is on line 1 already"),
        ("a\n    b\n  c\n", "line 3: indented unlike"),
        ("a\n b\nc\n", "line 3: c is a second root"),
        ("a\n b\n\t \tc\n", "line 3: indented by tabs and spaces"),
        ("a\n x: b\n", "line 2: the id 'x' is not an integer"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=message) as error:
        read_hierarchy(path)
    assert str(error.value).startswith(f"{path}: ")


def test_an_unreadable_file_is_named(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_hierarchy(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        read_hierarchy(tmp_path / "binary")


def test_unknown_and_repeated_classes_are_named():
    tree = Hierarchy([("root", "sparrow"), ("root", "swallow")])
    with pytest.raises(UserError, match="not in the hierarchy: 'sparow'; did you mean sparrow"):
        tree.dissimilarity(["sparow", "swallow"])
    with pytest.raises(UserError, match="classes given twice: swallow"):
        tree.dissimilarity(["swallow", "swallow"])
    with pytest.raises(UserError, match="--str_ids"):
        Hierarchy(TREE).lcs_heights(["3", "5"])


def test_the_digest_is_that_of_the_set_of_edges():
    assert Hierarchy(TREE).digest() == Hierarchy([*reversed(TREE), TREE[0]]).digest()
    assert Hierarchy(TREE).digest() != Hierarchy(TREE[:-1]).digest()
    assert Hierarchy([(0, 1)]).digest() != Hierarchy([("0", "1")]).digest()
