"""The driver of a sweep: it asks Optuna for settings, runs them, and reports what comes of them.

A trial's state is Optuna's, its progress that of its directory. One driver writes to a study of
SQLite; several share one on a server.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments import processes, space
from experiments.processes import Pool, Process
from experiments.runs import read_history
from experiments.sweep_plan import Plan
from utils import UserError

# When the first trials all fail, so will the others.
_FAILURES = 3
_ATTEMPTS = 4


@dataclass(frozen=True)
class Trial:
    """What is known of a trial.

    Attributes:
        number: From 0, over all drivers of the study.
        state: `running`, `done`, `pruned` or `failed`.
        values: Its settings, by flag.
        epochs: How many it has trained.
        score: The mean of its last epochs; of a failed trial `None`.
        seconds: From its beginning to its end.
        reason: Why it failed.
        directory: Where it is, on the machine of its driver.
    """

    number: int
    state: str
    values: dict
    epochs: int
    score: float | None
    seconds: float | None
    reason: str
    directory: str


class Sweep:
    """A sweep in its directory.

    Args:
        directory: Of the sweep.
        plan: What it is.
        pool: Where its trials run.
    """

    def __init__(self, directory: Path, plan: Plan, pool: Pool):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.directory = directory
        self.plan = plan
        self.pool = pool
        self.minimize = bool(plan.metric and "loss" in plan.metric)
        self.ranges = plan.ranges
        self._optuna = optuna
        self._study = self._open()
        self._trials: dict[Path, optuna.trial.Trial] = {}
        self._epochs: dict[Path, set[int]] = {}  # reported already
        self._changed: dict[Path, float] = {}

    def _open(self):
        optuna, plan = self._optuna, self.plan
        storage = plan.storage or f"sqlite:///{self.directory / 'study.db'}"
        pruner = optuna.pruners.NopPruner()
        if plan.grace:
            pruner = optuna.pruners.SuccessiveHalvingPruner(
                min_resource=plan.grace, reduction_factor=round(1 / plan.keep)
            )
        for left in reversed(range(_ATTEMPTS)):
            try:
                study = optuna.create_study(
                    storage=storage,
                    study_name=plan.study,
                    pruner=pruner,
                    direction="minimize" if self.minimize else "maximize",
                    load_if_exists=True,
                )
                break
            except Exception as error:  # of the server's Python driver, whatever that is
                # Of two drivers that begin at the same time one may find the tables half made.
                if not plan.storage or not left:
                    raise UserError(f"--storage {storage}: {error}") from None
                time.sleep(1)
        known = study.user_attrs.get("plan")
        if known is None:
            study.set_user_attr("plan", plan.shared)
        elif known != plan.shared:
            names = [name for name, value in plan.shared.items() if known.get(name) != value]
            raise UserError(
                f"--storage {storage}: its study {plan.study} is of another sweep (other "
                f"{', '.join(names)}); give another --study"
            )
        if plan.sampler == "grid" and not study.get_trials(deepcopy=False):
            grid = [[]]
            for one in self.ranges:
                grid = [[*before, (one.name, value)] for before in grid for value in one.values]
            for values in grid:
                study.enqueue_trial(dict(values), skip_if_exists=True)
        return study

    def _sampler(self, drawn: int):
        # A new one for every draw: what is drawn does not depend on how often the driver began.
        seed = (self.plan.seed * 1_000_003 + drawn) % 2**31
        if self.plan.storage:  # two drivers that draw at the same time must not draw the same
            seed += int(self.plan.driver[:6], 16)
        if self.plan.sampler == "tpe":
            return self._optuna.samplers.TPESampler(seed=seed)
        return self._optuna.samplers.RandomSampler(seed=seed)

    # -------------------------------------------------------------- what is known

    def trials(self) -> list[Trial]:
        """All trials of the study that have begun, by number."""
        names = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
        found = []
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state.name == "WAITING" or trial.user_attrs.get("surplus"):
                continue
            steps = trial.intermediate_values
            done = trial.state.is_finished()
            found.append(
                Trial(
                    number=trial.number,
                    state=names[trial.state.name],
                    values=dict(trial.params),
                    epochs=max(steps, default=0),
                    score=None if trial.state.name == "FAIL" else steps.get(max(steps, default=0)),
                    seconds=trial.duration.total_seconds() if done and trial.duration else None,
                    reason=trial.user_attrs.get("reason", ""),
                    directory=trial.user_attrs.get("directory", ""),
                )
            )
        return found

    def best(self, trials: Sequence[Trial]) -> Trial | None:
        """The best of the trials that were trained to their end."""
        done = [trial for trial in trials if trial.state == "done"]
        sign = -1 if self.minimize else 1
        return max(done, key=lambda trial: sign * trial.score, default=None)

    # -------------------------------------------------------------- the driver

    def run(self, show) -> None:
        """Runs trials until as many are there as planned.

        Args:
            show: Called as `show(sweep, event)` with a line whenever something happened, and with
                `None` between.

        Raises:
            UserError: The first three trials all failed.
            processes.Interrupted: A signal asked for the end.
        """
        with self.pool.signals():
            waiting = self._left_running()
            while True:
                while self.pool.free:
                    trial = waiting.pop(0) if waiting else self._ask()
                    if trial is None:
                        break
                    self._start(trial)
                    show(self, f"trial {trial.number}: {_settings(trial.params)}")
                if not self.pool.processes:
                    return
                show(self, None)
                self.pool.pause()
                for process in self.pool.processes:
                    self._report(process)
                for process in self.pool.ended():
                    self._report(process)
                    event = self._tell(process, waiting)
                    show(self, event)
                    self._check_failures()

    def _left_running(self) -> list:
        """This driver's trials that had begun when it ended; those still running are taken in."""
        state = self._optuna.trial.TrialState.RUNNING
        waiting = []
        for frozen in self._study.get_trials(deepcopy=False, states=(state,)):
            driver = frozen.user_attrs.get("driver")
            alone = driver is None and not self.plan.storage
            if driver != self.plan.driver and not alone:
                continue
            # Optuna makes these itself only for new trials.
            trial = self._optuna.trial.Trial(self._study, frozen._trial_id)
            directory = self._directory(trial.number)
            self._epochs[directory] = set(frozen.intermediate_values)
            process = self.pool.find(directory)
            ended = frozen.user_attrs.get("pruned") or (directory / "result.json").exists()
            if process is None and ended:  # and nobody was there to tell Optuna
                process = Process(directory, slot=-1, pid=None, child=None)
                self.pool.processes.append(process)
            if process:
                self._trials[directory] = trial
            else:
                waiting.append(trial)
        return waiting

    def _directory(self, number: int) -> Path:
        return self.directory / "trials" / f"{number:04d}"

    def _ask(self):
        """A new trial, or `None` if there are enough."""
        existing = self._study.get_trials(deepcopy=False)
        begun = sum(trial.state.name != "WAITING" for trial in existing)
        if begun >= self.plan.trials:
            return None
        self._study.sampler = self._sampler(begun)
        trial = self._study.ask({one.name: one.distribution() for one in self.ranges})
        if trial.number >= self.plan.trials:  # another driver has asked in the meantime
            trial.set_user_attr("surplus", True)
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            return None
        trial.set_user_attr("driver", self.plan.driver)
        return trial

    def _start(self, trial) -> None:
        directory = self._directory(trial.number)
        trial.set_user_attr("directory", str(directory))
        self.pool.start(directory, self.plan.trial_argv(trial.params))
        self._trials[directory] = trial

    def _report(self, process: Process) -> None:
        """Tells Optuna of new epochs; ends the trial if it is not worth to go on."""
        directory = process.directory
        try:
            changed = (directory / "history.csv").stat().st_mtime
        except FileNotFoundError:
            return
        if self._changed.get(directory) == changed:
            return
        self._changed[directory] = changed
        trial = self._trials[directory]
        known = self._epochs.setdefault(directory, set())
        for epoch, score in scores(read_history(directory), self.plan):
            if epoch in known:
                continue
            known.add(epoch)
            trial.report(score, epoch)
            if process.running and trial.should_prune():
                trial.set_user_attr("pruned", True)
                process.stop()
                return

    def _tell(self, process: Process, waiting: list) -> str:
        """Tells Optuna how a trial ended; a line about it. What was interrupted waits again."""
        directory = process.directory
        trial = self._trials.pop(directory)
        state, reason = process.outcome()
        states = self._optuna.trial.TrialState
        history = scores(read_history(directory), self.plan)
        pruned = trial.user_attrs.get("pruned")
        if state == processes.FINISHED and history:
            self._study.tell(trial, history[-1][1])
            line = f"done, {history[-1][1]:.4f}"
        elif state == processes.STOPPED and pruned:
            self._study.tell(trial, state=states.PRUNED)
            line = f"ended early after {history[-1][0]} epochs, {history[-1][1]:.4f}"
        elif state == processes.STOPPED:
            waiting.append(trial)
            return f"trial {trial.number}: interrupted, goes on"
        else:
            trial.set_user_attr("reason", reason)
            self._study.tell(trial, state=states.FAIL)
            return f"trial {trial.number}: failed: {reason}"
        processes.remove_snapshots(directory)
        return f"trial {trial.number}: {line}"

    def _check_failures(self) -> None:
        ended = [trial for trial in self.trials() if trial.state != "running"]
        if len(ended) == _FAILURES and all(trial.state == "failed" for trial in ended):
            raise UserError(
                f"the first {_FAILURES} trials all failed, so the sweep ends; the last one: "
                f"{ended[-1].reason}"
            )


def scores(history: list[dict[str, float]], plan: Plan) -> list[tuple[int, float]]:
    """The score after every epoch that was evaluated: `(epoch, mean of the last of them)`.

    Raises:
        UserError: There is no such column.
    """
    if not history:
        return []
    default = "val_prob_acc" if "val_prob_acc" in history[0] else "val_acc"
    name = plan.metric or default
    if name not in history[0]:
        raise UserError(f"--metric {name}: history.csv has only {', '.join(history[0])}")
    judged = [row for row in history if not np.isnan(row[name])]
    values = [row[name] for row in judged]
    return [
        (int(row["epoch"]), float(np.mean(values[max(0, i + 1 - plan.last) : i + 1])))
        for i, row in enumerate(judged)
    ]


def _settings(values: dict) -> str:
    return ", ".join(f"{name} {space.shown(value)}" for name, value in values.items())
