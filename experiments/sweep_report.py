"""What a sweep shows: a live table, trials.csv, best.args and a figure."""

import shlex
import shutil
import sys
import time
from collections.abc import Sequence

from experiments import tables
from experiments.sweep_plan import Plan
from experiments.sweeping import Sweep, Trial

_STATES = ("done", "running", "pruned", "failed")


def protocol(plan: Plan) -> str:
    """What the settings are selected on, as every table says it."""
    return f"selected on: {plan.selected_on}"


def rows_of(trials: Sequence[Trial], plan: Plan) -> list[dict]:
    """A row per trial with all digits."""
    return [
        {
            "trial": trial.number,
            "state": trial.state,
            "score": trial.score,
            "epochs": trial.epochs,
            **{one.name: trial.values.get(one.name) for one in plan.ranges},
            "seconds": trial.seconds,
            "selected_on": plan.selected_on,
            "reason": trial.reason,
            "directory": trial.directory,
        }
        for trial in trials
    ]


def table(sweep: Sweep, trials: Sequence[Trial], most: int | None = None) -> str:
    """The trials as text, the best first, those under way and failed ones after them.

    Args:
        sweep: The sweep.
        trials: Its trials.
        most: How many rows at most.
    """
    sign = 1 if sweep.minimize else -1

    def order(trial):
        score = float("inf") if trial.score is None else sign * trial.score
        return trial.state == "failed", score

    columns = ["trial", "state", "score", "epochs", *(one.name for one in sweep.ranges), "reason"]
    shown = sorted(trials, key=order)[:most]
    rows = [{key: row[key] for key in columns} for row in rows_of(shown, sweep.plan)]
    if not any(row["reason"] for row in rows):
        for row in rows:
            del row["reason"]
    more = f"\n… and {len(trials) - len(shown)} more" * (len(trials) > len(shown))
    return f"{tables.text(rows)}{more}"


def summary(sweep: Sweep, trials: Sequence[Trial]) -> str:
    """`12/40 done, 2 running, best 0.612 (trial 7), selected on: validation`, …"""
    counts = {state: sum(trial.state == state for trial in trials) for state in _STATES}
    parts = [f"{counts['done']}/{sweep.plan.trials} done"]
    parts += [f"{counts[state]} {state}" for state in _STATES[1:] if counts[state]]
    if best := sweep.best(trials):
        parts.append(f"best {best.score:.4f} (trial {best.number})")
    parts.append(protocol(sweep.plan))
    took = [trial.seconds for trial in trials if trial.state in ("done", "pruned")]
    left = sweep.plan.trials - sum(trial.state not in ("running",) for trial in trials)
    if took and left > 0:
        minutes = left * sum(took) / len(took) / sweep.plan.jobs / 60
        hours = f"{minutes / 60:.1f} h" if minutes > 90 else f"{minutes:.0f} min"
        parts.append(f"about {hours} left")
    return ", ".join(parts)


class Live:
    """Prints a line per event, and on a terminal a table below them that is kept up to date."""

    def __init__(self, stream=None):
        self._stream = stream or sys.stdout
        self._lines = 0
        self._next = 0.0

    def __call__(self, sweep: Sweep, event: str | None) -> None:
        terminal = self._stream.isatty()
        if event is None and (not terminal or time.monotonic() < self._next):
            return
        self.clear()
        if event:
            print(event, file=self._stream)
        if terminal:
            self._next = time.monotonic() + 2
            size = shutil.get_terminal_size()
            trials = sweep.trials()
            text = f"{table(sweep, trials, max(3, size.lines - 8))}\n{summary(sweep, trials)}"
            lines = [line[: size.columns - 1] for line in text.splitlines()]
            print("\n".join(lines), file=self._stream)
            self._lines = len(lines)
        self._stream.flush()

    def clear(self) -> None:
        """Removes the table."""
        if self._lines:
            print(f"\x1b[{self._lines}F\x1b[J", end="", file=self._stream)
            self._lines = 0


def write(sweep: Sweep) -> str:
    """Writes trials.csv, best.args and sweep.svg; the last words about the sweep."""
    trials = sweep.trials()
    best = sweep.best(trials)
    if trials:
        tables.write_csv(sweep.directory / "trials.csv", rows_of(trials, sweep.plan))
    lines = [table(sweep, trials), "", summary(sweep, trials)] if trials else ["no trial yet"]
    if best:
        path = sweep.directory / "best.args"
        tables.write_text(path, best_arguments(sweep.plan, best))
        _draw(sweep, trials)
        found = [one.edge(best.values[one.name]) for one in sweep.ranges]
        lines += [f"warning: {warning}" for warning in found if warning]
        lines.append(f"the best settings: python learn_classifier.py @{path} --seed 1")
    return "\n".join(lines)


def best_arguments(plan: Plan, best: Trial) -> str:
    """A file of arguments: the command of the best trial, one flag per line."""
    lines = [
        f"# trial {best.number} of {plan.trials}: {plan.metric or 'accuracy'} {best.score:.4f}, "
        f"mean of the last {plan.last} epochs",
        f"# {protocol(plan)}",
    ]
    for word in plan.trial_argv(best.values):
        if word.startswith("--") or len(lines) == 2:
            lines.append(shlex.quote(word))
        else:
            lines[-1] += f" {shlex.quote(word)}"
    return "\n".join(lines) + "\n"


def _draw(sweep: Sweep, trials: Sequence[Trial]) -> None:
    from experiments import figures

    scored = [trial for trial in trials if trial.score is not None]
    done = [trial for trial in scored if trial.state == "done"]
    label = f"{sweep.plan.metric or 'accuracy'}, {sweep.plan.selected_on} images"
    better = min if sweep.minimize else max
    with figures.figure(
        sweep.directory / "sweep.svg", columns=len(sweep.ranges) + 1, size=(3.6, 3.2)
    ) as axes:
        for one, own in zip(sweep.ranges, axes, strict=False):
            for state, marker in (("done", "o"), ("running", "^"), ("pruned", "x")):
                part = [trial for trial in scored if trial.state == state]
                if not part:
                    continue
                x = [trial.values[one.name] for trial in part]
                if one.kind == "of":
                    x = [one.values.index(value) for value in x]
                own.plot(x, [trial.score for trial in part], marker, label=state, markersize=5)
            if one.kind == "log":
                own.set_xscale("log")
            if one.kind == "of":
                own.set_xticks(range(len(one.values)), one.values)
            own.set(xlabel=one.name, ylabel=label)
        axes[0].legend(fontsize=8)
        by_number = [trial.number for trial in scored]
        axes[-1].plot(by_number, [trial.score for trial in scored], "o", markersize=4)
        best_so_far = [better(t.score for t in done[: i + 1]) for i in range(len(done))]
        axes[-1].step([t.number for t in done], best_so_far, where="post", label="best so far")
        axes[-1].set(xlabel="trial, in the order of time", ylabel=label)
        axes[-1].legend(fontsize=8)
