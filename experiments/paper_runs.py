"""Runs the trainings of the paper's tables and figures, and collects what came of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments import statistics
from experiments.paper import Cell, Protocol
from experiments.processes import Planned, Pool, run_all
from experiments.runs import Run, read_history, read_result

# The rate is chosen by the mean of so many last epochs: one alone is too noisy.
_LAST = 5


@dataclass(frozen=True)
class Outcome:
    """What the trainings of a cell gave.

    Attributes:
        cell: Which one.
        rate: The learning rate, `None` where it is not chosen yet.
        scores: Accuracies on the test images in [0, 1], one for each finished seed.
        reason: Why trainings failed, or empty.
    """

    cell: Cell
    rate: str | None
    scores: tuple[float, ...]
    reason: str = ""


class Study:
    """The trainings of some cells in a directory.

    Args:
        directory: Where they are, shared by all tables and figures.
        cells: What is trained.
        protocol: How.
        roots: The data root of each data set, or `None` for one that needs none.
        embeddings: Files in place of the names of class embeddings that have to be computed.
    """

    def __init__(
        self,
        directory: Path,
        cells: Sequence[Cell],
        protocol: Protocol,
        roots: Mapping[str, str | None],
        embeddings: Mapping[str, str],
    ):
        self.directory = directory / "runs"
        self.cells = cells
        self.protocol = protocol
        self.roots = roots
        self.embeddings = embeddings

    def _run(self, cell: Cell, rate: str, seed: int, *, search: bool) -> Planned:
        argv = [self.embeddings.get(word, word) for word in cell.argv]
        if root := self.roots[cell.dataset]:
            argv += ["--data_root", root]
        argv += ["--sgdr_max_lr", rate, "--seed", str(seed), "--cache", "disk"]
        held_out = search and self.protocol.validation
        if held_out:
            argv += ["--validation_fraction", self.protocol.validation]
        elif self.protocol.validation:
            argv += ["--val_every", "0"]  # the test images are looked at once
        part = "search" if held_out else "all"
        directory = self.directory / cell.name / part / f"lr_{rate}" / f"seed_{seed}"
        return Planned(directory, (*argv, *self.protocol.extra))

    def searches(self) -> list[Planned]:
        """The trainings that choose the learning rates."""
        rates = self.protocol.rates
        return [self._run(cell, rate, 0, search=True) for cell in self.cells for rate in rates]

    def finals(self, cell: Cell) -> list[Planned]:
        """The trainings of a cell with its learning rate; none while that is not chosen."""
        rate = self.rate(cell)
        if rate is None:
            return []
        return [self._run(cell, rate, seed, search=False) for seed in range(self.protocol.seeds)]

    def rate(self, cell: Cell) -> str | None:
        """The published rate, or the best of those tried once all of them have ended."""
        if not self.protocol.rates:
            return cell.rate
        scores = {}
        for rate in self.protocol.rates:
            directory = self._run(cell, rate, 0, search=True).directory
            if (directory / "result.json").exists():
                scores[rate] = self._search_score(directory)
            elif not (directory / "failed.txt").exists():
                return None
        return max(scores, key=scores.get, default=None)

    def _search_score(self, directory: Path) -> tuple[float, float]:
        """The accuracy that chooses; among equal ones, as few images often give, the loss."""
        run = Run(directory, read_result(directory))
        if not self.protocol.validation:
            return run.score("best"), 0.0
        rows = read_history(directory)[-_LAST:]
        accuracy, loss = (
            float(np.mean([row.get(name, 0.0) for row in rows]))
            for name in (run.accuracy_column, "val_loss")
        )
        return accuracy, -loss

    def run(self, pool: Pool, say=print) -> None:
        """Brings all trainings to their end; what failed is noted in its directory's failed.txt."""
        self._run_all(pool, self.searches(), say)
        self._run_all(pool, [run for cell in self.cells for run in self.finals(cell)], say)

    def _run_all(self, pool: Pool, runs: list[Planned], say) -> None:
        runs = [run for run in runs if not (run.directory / "failed.txt").exists()]
        for directory, reason in run_all(pool, runs, say).items():
            (directory / "failed.txt").write_text(reason + "\n")

    def outcomes(self) -> list[Outcome]:
        """What is known of every cell so far."""
        metric = "acc" if self.protocol.validation else "best"
        found = []
        for cell in self.cells:
            scores, reason = [], ""
            for run in self.finals(cell):
                if (run.directory / "result.json").exists():
                    scores.append(Run(run.directory, read_result(run.directory)).score(metric))
                elif (run.directory / "failed.txt").exists():
                    reason = (run.directory / "failed.txt").read_text().strip()
            found.append(Outcome(cell, self.rate(cell), tuple(scores), reason))
        return found


def table(outcomes: Sequence[Outcome]) -> list[dict]:
    """The rows of the paper's table: our mean, spread and n, and the published number."""
    rows: dict[str, dict] = {}
    for outcome in outcomes:
        row = rows.setdefault(outcome.cell.row, {"": outcome.cell.row})
        row[outcome.cell.column] = _cell_text(outcome)
    columns = list(dict.fromkeys(outcome.cell.column for outcome in outcomes))
    return [
        {"": row[""], **{column: row.get(column, "") for column in columns}}
        for row in rows.values()
    ]


def _cell_text(outcome: Outcome) -> str:
    text = "failed" if outcome.reason else "-"
    if outcome.scores:
        found = statistics.summarize([100 * score for score in outcome.scores])
        spread = "" if found.sd is None else f" ± {found.sd:.1f}"
        text = f"{found.mean:.1f}{spread} (n={found.n})"
    published = outcome.cell.published
    return text if published is None else f"{text} | paper {published:.1f}"


def rows_of(outcomes: Sequence[Outcome], protocol: Protocol) -> list[dict]:
    """A row per cell with all digits, accuracies in percent."""
    rows = []
    for outcome in outcomes:
        found = None
        if outcome.scores:
            found = statistics.summarize([100 * score for score in outcome.scores])
        rows.append(
            {
                "dataset": outcome.cell.dataset,
                "images per class": outcome.cell.size,
                "row": outcome.cell.row,
                "learning rate": outcome.rate,
                "mean": found and found.mean,
                "sd": found and found.sd,
                "low": found and found.low,
                "high": found and found.high,
                "n": len(outcome.scores),
                "published": outcome.cell.published,
                "protocol": protocol.words,
                "reason": outcome.reason,
            }
        )
    return rows


def draw_sizes(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Figure 3: accuracy by the number of training images per class, a panel per data set."""
    from experiments import figures

    datasets = list(dict.fromkeys(outcome.cell.dataset for outcome in outcomes))
    with figures.figure(path, columns=len(datasets), size=(6, 4)) as panels:
        for axes, dataset in zip(panels, datasets, strict=True):
            parts = [o for o in outcomes if o.cell.dataset == dataset and o.scores]
            for row in dict.fromkeys(outcome.cell.row for outcome in parts):
                _line(axes, [outcome for outcome in parts if outcome.cell.row == row], row)
            sizes = sorted({outcome.cell.size for outcome in parts})
            if sizes and sizes[-1] > 4 * sizes[0]:
                axes.set_xscale("log")
            axes.set_xticks(sizes, list(map(str, sizes)))
            axes.minorticks_off()
            axes.set(xlabel="training images per class", ylabel="accuracy on the test images (%)")
            axes.set_title(dataset)
            if parts:
                axes.legend(loc="lower right")


def _line(axes, parts: Sequence[Outcome], label: str) -> None:
    parts = sorted(parts, key=lambda outcome: outcome.cell.size)
    x = [outcome.cell.size for outcome in parts]
    summaries = [statistics.summarize([100 * s for s in outcome.scores]) for outcome in parts]
    [line] = axes.plot(x, [found.mean for found in summaries], "o-", markersize=4, label=label)
    colour = line.get_color()
    for outcome in parts:
        y = [100 * score for score in outcome.scores]
        axes.plot([outcome.cell.size] * len(y), y, ".", color=colour, markersize=4, alpha=0.5)
    low = [found.mean - (found.sd or 0) for found in summaries]
    high = [found.mean + (found.sd or 0) for found in summaries]
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def surfaces(size: int, reach: float = 3.0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Figure 1: three losses of two features whose target is (1, 0).

    Args:
        size: Points per side.
        reach: The features go from its negative to it.

    Returns:
        The axis `(size,)`, and for each loss its values `(size, size)`: rows by the second feature.
    """
    axis = np.linspace(-reach, reach, size)
    x, y = np.meshgrid(axis, axis)
    length = np.maximum(np.hypot(x, y), 1e-12)
    return axis, {
        "cross entropy": np.logaddexp(0, y - x),
        "squared distance": (x - 1) ** 2 + y**2,
        "cosine loss": 1 - x / length,
    }


def draw_surfaces(path: Path) -> None:
    """Draws figure 1."""
    from experiments import figures

    axis, losses = surfaces(240)
    ends = (axis[0], axis[-1], axis[0], axis[-1])
    with figures.figure(path, columns=3, size=(3.6, 3.2)) as panels:
        for axes, (name, values) in zip(panels, losses.items(), strict=True):
            image = axes.imshow(values, origin="lower", extent=ends, cmap="viridis")
            axes.figure.colorbar(image, ax=axes, shrink=0.8)
            axes.plot([1], [0], "x", color="white")
            axes.grid(False)
            axes.set(title=name, xlabel="feature 1", ylabel="feature 2")


def progress(outcomes: Sequence[Outcome], seeds: int) -> str:
    """How much is finished."""
    done = sum(len(outcome.scores) for outcome in outcomes)
    total = len(outcomes) * seeds
    share = 0 if not total else math.floor(100 * done / total)
    return f"{done} of {total} trainings are finished ({share} %)"
