"""The best settings of a sweep, trained on all training images and tested once for each seed."""

from collections.abc import Sequence
from pathlib import Path

from experiments import tables
from experiments.processes import Planned, Pool, run_all
from experiments.runs import SELECTION, read_result
from experiments.statistics import summarize
from experiments.sweep_plan import Plan
from experiments.sweep_report import protocol
from experiments.sweeping import Trial
from utils import UserError


def train(directory: Path, plan: Plan, best: Trial, seeds: int, pool: Pool) -> str:
    """Brings the final runs of a sweep to their end, and says what came of them.

    They are in `final/trial_…/seed_…` with their models, their table is `final.csv`.

    Args:
        directory: Of the sweep.
        plan: Its plan.
        best: The trial with the settings.
        seeds: How many runs, of the seeds from 0.
        pool: Where they run.

    Raises:
        UserError: One of them failed.
    """
    place = directory / "final" / f"trial_{best.number:04d}"
    place.mkdir(parents=True, exist_ok=True)
    selection = {"selected_on": plan.selected_on, "trial": best.number, "settings": best.values}
    tables.write_json(place / SELECTION, selection)
    argv = plan.final_argv(best.values)
    runs = []
    for seed in range(seeds):
        own = place / f"seed_{seed}"
        model = ["--model_dump", str(own / "model.keras")]
        runs.append(Planned(own, (*argv, "--seed", str(seed), *model)))
    failures = run_all(pool, runs)
    if failures:
        where, reason = next(iter(failures.items()))
        raise UserError(f"{len(failures)} of {seeds} final runs failed; {where}: {reason}")
    rows = [_row(run.directory, plan) for run in runs]
    tables.write_csv(directory / "final.csv", rows)
    return "\n".join([tables.text(rows), "", *_summary(rows, plan, best)])


def _row(directory: Path, plan: Plan) -> dict:
    result = read_result(directory)
    return {
        "seed": result["seed"],
        "test_acc": result["final"]["acc"],
        "test_average_acc": result["final"]["average_acc"],
        "test images": result["test"]["n"],
        "settings selected on": plan.selected_on,
        "directory": str(directory),
    }


def _summary(rows: Sequence[dict], plan: Plan, best: Trial) -> list[str]:
    lines = []
    for name in ("test_acc", "test_average_acc"):
        found = summarize([row[name] for row in rows])
        spread = ""
        if found.sd is not None:
            spread = f", sd {found.sd:.4f}, 95 % interval {found.low:.4f} to {found.high:.4f}"
        lines.append(f"{name}: mean {found.mean:.4f}{spread}, n = {found.n} seeds")
    return [*lines, f"settings of trial {best.number}, {protocol(plan)}; scores of the last epochs"]
