"""Hierarchies for people: as text, and as a figure."""

import os
from pathlib import Path

from embeddings.hierarchy import ClassId, Hierarchy
from utils import UserError, atomic_path

# Sizes of the figure, in inches, at which labels of 6 to 7 points do not touch.
_ROW, _CHARACTER, _MARGIN = 0.15, 0.062, 0.2
_MAX_PIXELS = 2**16 - 1  # per side, a limit of matplotlib's rasteriser
_DPI = 150


def label(hierarchy: Hierarchy, node: ClassId) -> str:
    """A node's id and name, or only its name where that is the id."""
    name = hierarchy.names[node]
    return name if name == str(node) else f"{node}: {name}"


def show(hierarchy: Hierarchy) -> str:
    """The hierarchy as a text tree, one line per node.

    A node with several parents is listed below each of them; what is below it, only once.
    """
    lines = []
    expanded = set()
    stack = [(hierarchy.root, "", "")]
    while stack:
        node, lead, indent = stack.pop()
        children = hierarchy.children(node)
        again = bool(children) and node in expanded
        lines.append(lead + label(hierarchy, node) + (" (see above)" if again else ""))
        if again:
            continue
        expanded.add(node)
        for child in reversed(children):
            last = child == children[-1]
            branch, below = ("└── ", "    ") if last else ("├── ", "│   ")
            stack.append((child, indent + branch, indent + below))
    return "\n".join(lines)


def plot(hierarchy: Hierarchy, path: str | os.PathLike) -> None:
    """Draws the hierarchy from left to right, one row per leaf, so that 200 classes are readable.

    A node with several parents stands below the first of them, with dotted lines to the others.

    Args:
        hierarchy: What to draw.
        path: The file, `.svg`, `.png` or `.pdf`.

    Raises:
        UserError: The picture is too large for a `.png`.
    """
    import matplotlib
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    path = Path(path)
    rows, extra_edges = _layout(hierarchy)
    inner = [node for node in rows if hierarchy.heights[node]]
    level = _CHARACTER * max(len(label(hierarchy, node)) for node in inner) + 0.25
    last = max(len(label(hierarchy, leaf)) for leaf in hierarchy.leaves) * _CHARACTER * 1.15
    x = {node: hierarchy.depths[node] * level for node in rows}
    y = {node: row * _ROW for node, row in rows.items()}
    width = max(x.values()) + last + 2 * _MARGIN
    height = max(y.values()) + 2 * _MARGIN + _ROW
    if path.suffix == ".png" and max(width, height) * _DPI > _MAX_PIXELS:
        raise UserError(f"{path}: {len(hierarchy.leaves)} leaves are too many for .png; use .svg")

    edges = [(p, c) for p in rows for c in hierarchy.children(p)]
    straight = [
        [(x[p], y[p]), (x[p], y[c]), (x[c], y[c])] for p, c in edges if (p, c) not in extra_edges
    ]
    straight.append(
        [(x[hierarchy.root] - level, y[hierarchy.root]), (x[hierarchy.root], y[hierarchy.root])]
    )
    dotted = [[(x[p], y[p]), (x[c], y[c])] for p, c in edges if (p, c) in extra_edges]

    # Text as text keeps the .svg small and searchable; the salt makes its bytes reproducible.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "hierarchy"}):
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(-_MARGIN, width - _MARGIN), ylim=(height - _MARGIN - _ROW, -_MARGIN - _ROW))
        axes.set_axis_off()
        axes.add_collection(LineCollection(straight, colors="0.45", linewidths=0.7))
        axes.add_collection(
            LineCollection(dotted, colors="tab:red", linewidths=0.7, linestyles=":")
        )
        for node in rows:
            text = label(hierarchy, node).replace("$", r"\$")
            if hierarchy.heights[node]:
                axes.text(x[node] - 0.05, y[node] - 0.01, text, fontsize=6, ha="right", va="bottom")
            else:
                axes.text(x[node] + 0.05, y[node], text, fontsize=7, ha="left", va="center")
        metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=_DPI, metadata=metadata)


def _layout(hierarchy: Hierarchy) -> tuple[dict[ClassId, float], set[tuple[ClassId, ClassId]]]:
    """The row of every node, and the edges beyond the first one that leads to a node.

    Leaves have rows of their own in depth-first order; inner nodes are amid their children.
    """
    tree_children: dict[ClassId, list[ClassId]] = {}
    extra = set()
    seen = {hierarchy.root}
    order = []
    stack = [hierarchy.root]
    while stack:
        node = stack.pop()
        order.append(node)
        children = hierarchy.children(node)
        extra.update((node, child) for child in children if child in seen)
        tree_children[node] = [child for child in children if child not in seen]
        seen.update(children)
        stack.extend(reversed(tree_children[node]))
    rows: dict[ClassId, float] = {}
    free = 0
    for node in order:
        if not tree_children[node]:
            rows[node] = free
            free += 1
    for node in reversed(order):
        if tree_children[node]:
            rows[node] = (rows[tree_children[node][0]] + rows[tree_children[node][-1]]) / 2
    return rows, extra
