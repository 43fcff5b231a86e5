import unicodedata

import numpy as np
import pytest

import embeddings
from embeddings.hierarchy import Hierarchy
from embeddings.hierarchy_files import format_tree, read_hierarchy
from utils import UserError

EDGES = [("all", "black bear"), ("all", "big cat"), ("big cat", "white lion")]
PAIRS = {
    "tabs": "all\tblack bear\nall\tbig cat\nbig cat\twhite lion\n",
    "tabs and spaces": "all \t black bear\nall\t\tbig cat\nbig cat\twhite lion\n",
    "quotes": 'all "black bear"\nall "big cat"\n"big cat" "white lion"\n',
    "commas": "parent,child\nall,black bear\nall, big cat\nbig cat,white lion\n",
    "semicolons": "all;black bear\nall;big cat\nbig cat;white lion\n",
    "child first": "child\tparent\nblack bear\tall\nbig cat\tall\nwhite lion\tbig cat\n",
    "tree": "all\n  black bear\n  big cat\n    white lion\n",
    "tree with names": 'all\n  "black bear": Ursus\n  big cat\n    "white lion"\n',
    "tree with names, without quotes": "all\n\tblack bear: Ursus: a\n\tbig cat\n\t\twhite lion\n",
}


def read(tmp_path, text, **options):
    (tmp_path / "h.txt").write_text(text, encoding="utf-8")
    return read_hierarchy(tmp_path / "h.txt", **{"str_ids": True} | options)


@pytest.mark.parametrize("form", PAIRS)
def test_ids_with_spaces(tmp_path, form):
    assert read(tmp_path, PAIRS[form]).digest() == Hierarchy(EDGES).digest()


def test_words_without_separators_are_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"line 2: expected two ids .* .by a tab or a comma.*'all bl"
    ):
        read(tmp_path, "all cat\nall black bear\n")


def test_commas_within_ids(tmp_path):
    assert read(tmp_path, "tench,Tinca a\ntench,Tinca b\n").root == "tench,Tinca"
    assert read(tmp_path, "r, a\nr, b\n").leaves == ["a", "b"]


def test_lines_indented_by_tabs_and_others_by_spaces_are_refused(tmp_path):
    """How wide a tab is, only the editor knew."""
    for indents in (("\t", "    "), ("  ", "  \t"), ("  ", "\t")):
        with pytest.raises(UserError, match="line 3: indented by tabs and spaces"):
            read(tmp_path, "all\n{}dog\n{}cat\n".format(*indents))


def test_header_against_the_flag(tmp_path):
    assert read(tmp_path, "Parent Child\n1 2\n1 3\n", str_ids=False).leaves == [2, 3]
    with pytest.raises(UserError, match="leave --is_a out"):
        read(tmp_path, "parent child\n1 2\n", is_a=True)


def test_trees_with_spaces_survive_a_round_trip(tmp_path):
    names = {"black bear": "Ursus", "big cat": "big cat", 'odd: "x"': 'odd: "x"'}
    tree = Hierarchy([*EDGES, ("all", 'odd: "x"')], names)
    again = read(tmp_path, format_tree(tree))
    assert (again.digest(), again.names) == (tree.digest(), tree.names)


def test_accents_in_either_form_are_the_same_class(tmp_path):
    apart = unicodedata.normalize("NFD", "Löwe")
    read(tmp_path, f"r\t{apart}\nr\tx\nx\ty z\n")
    spec = f"hierarchy:{tmp_path / 'h.txt'}"
    vectors = embeddings.class_embeddings(spec, ["Löwe", "y z"])
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(2), atol=1e-15)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((f"0 {i}" for i in range(1, 500_002)), "has 500,001 lines, expected at most 500,000"),
        ((f"{i} {i + 1}" for i in range(1001)), "has 1002 levels, expected at most 1000"),
        ((f"{i + 1} {i}" for i in range(1001)), "has 1002 levels, expected at most 1000"),
    ],
)
def test_what_no_taxonomy_has_is_refused(tmp_path, lines, message):
    path = tmp_path / "h.txt"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=f"h.txt: .*{message}"):
        read_hierarchy(path)


def test_more_pairs_of_classes_than_memory_has_are_refused(tmp_path):
    path = tmp_path / "h.txt"
    path.write_text("\n".join(f"0 {i}" for i in range(1, 30_001)))
    hierarchy = read_hierarchy(path)
    with pytest.raises(UserError, match="too large: 30,000 classes below 1 nodes"):
        hierarchy.dissimilarity(hierarchy.leaves)
