"""What a sweep is: its base command, ranges and rules, kept in its directory as sweep.json."""

import json
import shlex
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from experiments import space
from experiments.tables import write_json
from utils import UsageError, UserError

# What another call of the same sweep may change.
CHANGEABLE = ("trials", "jobs", "gpus_per_trial", "storage")
# The sweep gives each trial its own files.
_OWN = (
    "--log_dir", "--output", "--snapshot", "--model_dump", "--plain_dump",
    "--weight_dump", "--feature_dump",
    "--check_data", "--initial_epoch",
)  # fmt: skip
_SPLITS = ("--validation_fraction", "--fold")


@dataclass(frozen=True)
class Plan:
    """A sweep's settings; all but `CHANGEABLE` stay what they were at its first call.

    Attributes:
        base: Arguments of `learn_classifier.py` that all trials share.
        tune: The words of every `--tune`.
        sampler: `tpe`, `random` or `grid`.
        seed: Draws the settings.
        grace: Epochs before a trial may be ended early; `None`: none is.
        keep: Share of the trials that go on after each doubling of `grace` (or tripling, …).
        metric: A column of `history.csv`; `None`: the validation accuracy that counts.
        last: The score is the mean of so many last epochs.
        selected_on: `validation` or `test`.
        trials: How many there shall be.
        jobs: How many run at a time.
        gpus_per_trial: GPUs for each, or the share of one; `None`: all, divided.
        storage: Where Optuna keeps the study; `None`: a file of SQLite in the directory.
        study: The study's name there.
        driver: Tells the drivers that share a study apart.
    """

    base: tuple[str, ...]
    tune: tuple[tuple[str, ...], ...] = ()
    sampler: str = "tpe"
    seed: int = 0
    grace: int | None = None
    keep: float = 0.5
    metric: str | None = None
    last: int = 5
    selected_on: str = "validation"
    trials: int = 20
    jobs: int = 1
    gpus_per_trial: float | None = None
    storage: str | None = None
    study: str = "sweep"
    driver: str = ""

    @property
    def ranges(self) -> list[space.Range]:
        return [space.parse_range(words) for words in self.tune]

    @property
    def shared(self) -> dict[str, Any]:
        """What all drivers of one study must agree on."""
        own = (*CHANGEABLE, "study", "driver")
        return {k: v for k, v in json.loads(json.dumps(asdict(self))).items() if k not in own}

    def trial_argv(self, values: dict[str, Any]) -> list[str]:
        """The arguments of a trial with these settings."""
        argv = [*self.base, *space.flags_of(values)]
        # A second trial must not decode the images again.
        return argv if _has(argv, ["--cache"]) else [*argv, "--cache", "disk"]

    def final_argv(self, values: dict[str, Any]) -> list[str]:
        """The same on all training images, without a seed."""
        names = [*_SPLITS, "--seed", "--snapshot_best"]
        if self.selected_on == "test":
            return space.without_flags(self.trial_argv(values), names)
        # The test images are looked at once.
        argv = space.without_flags(self.trial_argv(values), [*names, "--val_every"])
        return [*argv, "--val_every", "0"]


def _has(argv: Sequence[str], flags: Sequence[str]) -> list[str]:
    return [word for word in argv if word.partition("=")[0] in flags]


def path_of(directory: Path) -> Path:
    """Where a sweep's plan is kept."""
    return directory / "sweep.json"


def load(directory: Path) -> Plan | None:
    """The plan of the sweep in a directory, or `None` if there is none yet.

    Raises:
        UserError: The file is not one that `sweep.py` wrote.
    """
    path = path_of(directory)
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        if content.keys() == {field.name for field in fields(Plan)}:
            base, tune = content.pop("base"), content.pop("tune")
            return Plan(base=tuple(base), tune=tuple(map(tuple, tune)), **content)
    except (ValueError, TypeError, AttributeError):
        pass
    raise UserError(f"{path}: is no plan that sweep.py wrote; give another directory")


def settle(
    directory: Path,
    given: dict[str, Any],
    check: Callable[[list[str]], None],
) -> Plan:
    """The plan of a call: that of the directory's sweep, or a new one, checked and written.

    Args:
        directory: Of the sweep.
        given: What the call gives, by the names of `Plan`; `select_on_test` for `selected_on`.
        check: Raises a `UsageError` if `learn_classifier.py` would refuse arguments.

    Raises:
        UsageError: The call contradicts the sweep that is there, or what it asks for cannot work.
    """
    plan = load(directory)
    select_on_test = given.pop("select_on_test", None)
    if select_on_test:
        given["selected_on"] = "test"
    if plan is None:
        if not given.get("base"):
            raise UsageError(
                f"{directory}: there is no sweep yet; give the command to sweep over, after --"
            )
        if directory.exists() and any(directory.iterdir()):
            raise UsageError(f"{directory}: holds other files than a sweep's; give another one")
        plan = Plan(**{"driver": uuid.uuid4().hex, **given})
        _check(plan, check)
        directory.mkdir(parents=True, exist_ok=True)
    else:
        for name, value in given.items():
            if name not in CHANGEABLE and value != getattr(plan, name):
                raise UsageError(
                    f"{directory}: its sweep has another {_name(name)}: "
                    f"{_words(getattr(plan, name))}, not {_words(value)}; give another directory, "
                    "or leave it out to go on"
                )
        plan = replace(plan, **{k: v for k, v in given.items() if k in CHANGEABLE})
    if plan.sampler == "grid":
        plan = replace(plan, trials=_grid_size(plan))
    write_json(path_of(directory), asdict(plan))
    return plan


def _grid_size(plan: Plan) -> int:
    size = 1
    for one in plan.ranges:
        size *= len(one.values)
    return size


def _name(name: str) -> str:
    return {"base": "command", "selected_on": "--select_on_test"}.get(name, f"--{name}")


def _words(value: Any) -> str:
    if not isinstance(value, tuple):
        return str(value)
    return " ".join(_words(one) if isinstance(one, tuple) else shlex.quote(one) for one in value)


def _check(plan: Plan, check: Callable[[list[str]], None]) -> None:
    if own := _has(plan.base, _OWN):
        raise UsageError(f"{own[0]}: every trial gets its own from the sweep; leave it out")
    split = _has(plan.base, _SPLITS)
    if plan.selected_on == "validation" and not split:
        raise UsageError(
            "the command holds no validation images out: add --validation_fraction 0.2 (or --fold) "
            "to it, or --select_on_test to the sweep, to choose by the test images as published"
        )
    if plan.selected_on == "test" and split:
        raise UsageError(
            f"--select_on_test: the command holds validation images out ({split[0]}); leave one of "
            "the two out"
        )
    if not plan.tune:
        raise UsageError("--tune: nothing to vary; give a range, or --grid for the paper's rates")
    names = [one.name for one in plan.ranges]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"--tune {twice[0]}: is given twice")
    for one in plan.ranges:
        if _has(plan.base, [f"--{one.name}"]):
            raise UsageError(f"--tune {one.name}: the command fixes it; leave one of the two out")
        if plan.sampler == "grid" and one.kind != "of":
            raise UsageError(f"--tune {' '.join(one.words)}: --grid needs a list: {one.name} of …")
    first = {one.name: one.values[0] for one in plan.ranges}
    for one in plan.ranges:
        for value in one.values:
            try:
                check(plan.trial_argv({**first, one.name: value}))
            except UsageError as error:
                named = one.name in str(error)
                where = f"--tune {' '.join(one.words)}: " if named else "the command after --: "
                raise UsageError(f"{where}{error}") from None
