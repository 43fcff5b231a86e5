"""What a finished run says, read from the directory it wrote: result.json, history.csv, …"""

import contextlib
import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils import UserError

# What may differ between two repetitions of a run: its chance, and which images were drawn.
REPETITION = ("seed", "split_seed", "fold")
# Beside the directories of runs: what selected the settings that they share.
SELECTION = "selection.json"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        directory: Where it wrote.
        result: The content of its `result.json`.
    """

    directory: Path
    result: dict[str, Any]

    @property
    def arguments(self) -> dict[str, Any]:
        """Its resolved arguments, by name."""
        return self.result["arguments"]

    @property
    def repetition(self) -> tuple:
        """Seed, and which part of the training images validates."""
        return tuple(self.arguments.get(name) for name in REPETITION)

    @property
    def selected_on(self) -> str:
        """What epochs were judged by, or the settings selected on: `test` or `validation`."""
        path = self.directory.parent / SELECTION
        if path.exists():
            with contextlib.suppress(ValueError, KeyError):
                return str(json.loads(path.read_text())["selected_on"])
        return self.result.get("selected_on", "test")

    @property
    def accuracy_column(self) -> str:
        """The accuracy that counts, as `history.csv` calls it."""
        return "val_prob_acc" if self.arguments.get("cls_weight") else "val_acc"

    def score(self, name: str) -> float:
        """A score of the test images.

        Args:
            name: `acc`, `average_acc`, … of the final weights, or `best`: of the best epoch,
                which the published protocol reports.

        Raises:
            UserError: The run has no such score.
        """
        scores = test_scores(self.result)
        if name not in scores:
            raise UserError(
                f"{self.directory / 'result.json'}: has no score {name} of the test images, but "
                f"{', '.join(scores)}"
            )
        return scores[name]


def test_scores(result: dict[str, Any]) -> dict[str, float]:
    """The scores of the test images, by name, that a `result.json` holds.

    `best` is one only where the epochs were judged by the test images.
    """
    scores = {name: float(value) for name, value in result["final"].items()}
    best = result["best"]
    if result.get("selected_on", "test") == "test":
        scores["best"] = best.get("val_prob_acc", best.get("val_acc"))
    return scores


def read_result(directory: Path) -> dict[str, Any]:
    """The content of a directory's `result.json`.

    Raises:
        UserError: It is not one that `learn_classifier.py` wrote.
    """
    path = directory / "result.json"
    try:
        result = json.loads(path.read_text())
        if isinstance(result["arguments"], dict) and isinstance(result["final"], dict):
            return result
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path}: is no result of learn_classifier.py; leave the directory out")


def find_runs(paths: Iterable[str | Path]) -> tuple[list[Run], list[Path]]:
    """The finished runs in directories and below them, and those that are not finished.

    Args:
        paths: Directories of runs, or directories that hold such; files are passed over, as a
            shell's `runs/*` names them too.

    Raises:
        UserError: A path is not there, or a result cannot be read.
    """
    runs, unfinished = {}, {}
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"{path}: there is no such directory")
        for directory in sorted([path, *path.rglob("*/")]) if path.is_dir() else []:
            if (directory / "result.json").exists():
                runs[directory.resolve()] = Run(directory, read_result(directory))
            elif (directory / "history.csv").exists():
                unfinished[directory.resolve()] = directory
    return list(runs.values()), list(unfinished.values())


def read_history(directory: Path) -> list[dict[str, float]]:
    """The rows of a run's `history.csv`, one per epoch; none where there is no such file.

    What an epoch was not evaluated for is NaN.

    Raises:
        UserError: It is not one that `learn_classifier.py` wrote.
    """
    path = directory / "history.csv"
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        return [{name: float(value or "nan") for name, value in row.items()} for row in rows]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, csv.Error):
        raise UserError(f"{path}: is no history of learn_classifier.py") from None


def read_predictions(directory: Path) -> dict[str, bool] | None:
    """Which test images a run classified rightly, by their path; `None` without the file.

    Raises:
        UserError: `predictions.csv` lacks the columns `path`, `true` and `predicted`.
    """
    path = directory / "predictions.csv"
    try:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            return {row["path"]: row["true"] == row["predicted"] for row in csv.DictReader(file)}
    except FileNotFoundError:
        return None
    except (KeyError, csv.Error):
        raise UserError(
            f"{path}: expected the columns path, true and predicted in its first line"
        ) from None


def differing(runs: Sequence[Run], ignored: Iterable[str]) -> dict[str, list]:
    """The arguments in which runs differ, each with its values in the order of their appearance.

    Args:
        runs: The runs.
        ignored: Names that do not matter.
    """
    names = dict.fromkeys(name for run in runs for name in run.arguments)
    values = {
        name: list({repr(v): v for run in runs for v in [run.arguments.get(name)]}.values())
        for name in names
        if name not in set(ignored)
    }
    return {name: found for name, found in values.items() if len(found) > 1}
