import itertools
import re
from pathlib import Path

import pytest
from PIL import Image

from embeddings.drawing import plot, show
from embeddings.hierarchy import Hierarchy
from embeddings.hierarchy_files import read_hierarchy
from utils import UserError

TAXONOMIES = Path(__file__).parents[2] / "embeddings" / "taxonomies"
GRAPH = Hierarchy(
    [("r", "a"), ("r", "b"), ("a", "x"), ("a", "s"), ("s", 1), ("b", "s")], {1: "one $ & <two>"}
)


def test_a_graph_as_text():
    assert show(GRAPH) == (
        "r\n├── a\n│   ├── x\n│   └── s\n│       └── 1: one $ & <two>\n└── b\n    └── s (see above)"
    )


def test_every_node_of_200_classes_is_in_the_figure_and_rows_do_not_touch(tmp_path):
    tree = read_hierarchy(TAXONOMIES / "cub_balanced.txt")
    plot(tree, tmp_path / "tree.svg")
    svg = (tmp_path / "tree.svg").read_text(encoding="utf-8")
    for leaf in tree.leaves:
        assert f"{leaf}: {tree.names[leaf]}<" in svg
    assert "Pelecanidae + Balaenicipitidae<" in svg
    places = re.findall(r'<text style="font-size: 7px[^>]*?(?:translate\([\d.]+ |y=")([\d.]+)', svg)
    rows = sorted(float(y) for y in places)
    assert len(rows) == 200
    assert min(b - a for a, b in itertools.pairwise(rows)) > 7


def test_the_same_hierarchy_gives_the_same_svg(tmp_path):
    plot(GRAPH, tmp_path / "a.svg")
    plot(GRAPH, tmp_path / "b.svg")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert text == (tmp_path / "b.svg").read_text(encoding="utf-8")
    assert "1: one $ &amp; &lt;two&gt;" in text


def test_a_png_has_ink_and_a_huge_one_is_refused(tmp_path):
    plot(GRAPH, tmp_path / "g.png")
    with Image.open(tmp_path / "g.png") as image:
        assert image.convert("L").getextrema()[0] < 100
    huge = Hierarchy([(0, node) for node in range(1, 4000)])
    with pytest.raises(UserError, match=r"3999 leaves are too many for \.png; use \.svg"):
        plot(huge, tmp_path / "huge.png")
    assert not (tmp_path / "huge.png").exists()
