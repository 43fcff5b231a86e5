"""Figures as SVG that are readable on light and on dark pages."""

import contextlib
import os
from collections.abc import Iterator, Sequence

import numpy as np

from experiments.comparing import Group
from experiments.runs import read_history
from experiments.statistics import t_interval
from experiments.tables import write_text

# Told apart by the colour-blind too (after Okabe and Ito), on white as on near-black.
COLOURS = ("#2f81c7", "#d55e00", "#009e73", "#c46fa0", "#b58900", "#56b4e9")
_INK, _LIGHT_INK = "#1f2328", "#e6edf3"
_GRID, _DARK_GRID = "#d0d7de", "#3d444d"
_STYLE = {
    "svg.hashsalt": "figure",  # the same figure is the same file
    "axes.edgecolor": _INK, "axes.labelcolor": _INK, "axes.titlecolor": _INK, "text.color": _INK,
    "xtick.color": _INK, "ytick.color": _INK, "grid.color": _GRID, "legend.framealpha": 0,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "axes.axisbelow": True, "font.size": 11,
}  # fmt: skip
_DARK = "".join(
    f'[style*="{name}: {light}"]{{{name}:{dark}!important}}'
    for light, dark in ((_INK, _LIGHT_INK), (_GRID, _DARK_GRID))
    for name in ("fill", "stroke")
)


@contextlib.contextmanager
def figure(path: str | os.PathLike, columns: int = 1, size: tuple = (6.5, 4)) -> Iterator[list]:
    """The axes of a new figure, which is written to an SVG file at the end.

    Args:
        path: The file.
        columns: How many axes, side by side.
        size: Width and height of one in inches.
    """
    import io

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with matplotlib.rc_context({**_STYLE, "axes.prop_cycle": pyplot.cycler(color=COLOURS)}):
        drawn, axes = pyplot.subplots(
            1, columns, figsize=(columns * size[0], size[1]), layout="constrained", squeeze=False
        )
        try:
            yield list(axes[0])
            buffer = io.StringIO()
            drawn.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        finally:
            pyplot.close(drawn)
    # Viewers that know no style sheets show the light version.
    start, end, rest = buffer.getvalue().partition("<defs>")
    style = f"<style>@media (prefers-color-scheme: dark){{{_DARK}}}</style>"
    write_text(path, f"{start}{style}\n{end}{rest}")


def mean_and_band(axes, x: Sequence[float], values: np.ndarray, label: str) -> None:
    """A line of means with the band of their 95 % intervals.

    Args:
        axes: Where.
        x: (points,).
        values: (runs, points).
        label: Name of the line.
    """
    [line] = axes.plot(x, np.mean(values, axis=0), label=label)
    if len(values) > 1:
        axes.fill_between(x, *t_interval(values.T), color=line.get_color(), alpha=0.2, linewidth=0)


def draw_groups(path: str | os.PathLike, groups: Sequence[Group]) -> None:
    """Draws groups of runs: accuracy by epoch with bands, and final scores with every run."""
    with figure(path, columns=2, size=(5.5, 4)) as (curves, bars):
        for i, group in enumerate(groups):
            column = group.runs[0].accuracy_column
            rows = [read_history(run.directory) for run in group.runs]
            epochs = min(map(len, rows))
            if epochs and all(column in run[0] for run in rows):
                values = np.array([[100 * row[column] for row in run[:epochs]] for run in rows])
                x = np.array([row["epoch"] for row in rows[0][:epochs]])
                judged = np.isfinite(values).all(axis=0)
                mean_and_band(curves, x[judged], values[:, judged], group.name)
            scores = 100 * np.array(group.scores)
            colour = COLOURS[i % len(COLOURS)]
            bars.bar(i, np.mean(scores), color=colour, alpha=0.35)
            spread = np.linspace(-0.2, 0.2, len(scores)) if len(scores) > 1 else [0]
            bars.plot(i + np.array(spread), scores, "o", color=colour, markersize=4)
        selected = sorted({group.selected_on for group in groups})
        curves.set(xlabel="epoch", ylabel=f"accuracy (%) of the {' or '.join(selected)} images")
        bars.set(ylabel="accuracy (%) of the test images", xticks=range(len(groups)))
        bars.set_xticklabels([group.name for group in groups], rotation=20, ha="right")
        if curves.lines:
            curves.legend(loc="lower right", fontsize=9)
