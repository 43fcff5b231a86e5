"""Snapshot files: the whole state of a training, in two copies, each with a checksum.

Nothing here imports Keras, so that a changed argument is refused before anything is loaded.
"""

import csv
import hashlib
import json
import logging
import os
from argparse import Namespace
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from foreign_files import load_npz
from training.resuming import snapshot_schema
from training.resuming.snapshot_schema import ALL_LAYERS
from utils import UsageError, UserError

logger = logging.getLogger(__name__)

_FORMAT = "small-data snapshot 1"


@dataclass
class Snapshot:
    """The state of a training between two steps.

    Attributes:
        arguments: The resolved arguments, by name.
        epoch: Completed epochs of this phase.
        batch: Steps done in the epoch after those; all of them within its evaluation.
        arrays: Variables of the model, the optimiser and, within an epoch, the metrics.
        phase: What is trained: `ALL_LAYERS` or, at first in fine-tuning, `NEW_LAYERS` alone
            (`snapshot_schema`).
        new_layers: Names of the layers that fine-tuning found no weights for.
        state: What the callbacks remember: history, best scores, plateau, elapsed time.
        data: Facts of the data set and the versions of the program's parts.
    """

    arguments: dict[str, Any]
    epoch: int
    batch: int
    arrays: dict[str, np.ndarray]
    phase: str = ALL_LAYERS
    new_layers: list[str] = field(default_factory=list)
    state: dict[str, dict[str, Any]] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Where in the training this is, in words."""
        words = (
            f"epoch {self.epoch + 1}, step {self.batch}" if self.batch else f"epoch {self.epoch}"
        )
        return words if self.phase == ALL_LAYERS else f"{words} of the new layers alone"


def previous_path(path: str | os.PathLike) -> Path:
    """Where the snapshot before the newest one is."""
    return Path(f"{path}.previous")


def exists(path: str | os.PathLike | None) -> bool:
    """Whether there is a snapshot to continue from, be it damaged."""
    return bool(path) and (Path(path).exists() or previous_path(path).exists())


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data.cast("B") if array.size else b"")
    return digest.hexdigest()


def dump(file: BinaryIO, snapshot: Snapshot) -> None:
    """Writes a snapshot to an open file."""
    header = {name: value for name, value in vars(snapshot).items() if name != "arrays"}
    text = json.dumps({"format": _FORMAT, **header})
    arrays = {**snapshot.arrays, "header": np.frombuffer(text.encode(), np.uint8)}
    np.savez(file, **arrays, sha256=np.array(_digest(arrays)))


def write(path: str | os.PathLike, snapshot: Snapshot, *, keep_previous: bool = True) -> None:
    """Writes a snapshot; at every instant at least one whole copy has one of the two names.

    Args:
        path: The file; the one of that name becomes `previous_path(path)`.
        snapshot: The state.
        keep_previous: Whether the file that is there is good; a damaged one must not take the
            place of the good copy.

    Raises:
        OSError: It cannot be written; both older copies are as they were.
    """
    # One name for all attempts: what a crash leaves behind is overwritten by the next one.
    partial = Path(f"{path}.partial")
    try:
        with open(partial, "wb") as file:
            dump(file, snapshot)
            file.flush()
            os.fsync(file.fileno())
        if keep_previous and Path(path).exists():
            os.replace(path, previous_path(path))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    # The names are the directory's content: without this a power failure could undo the renames.
    directory = os.open(Path(path).absolute().parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read(path: str | os.PathLike) -> Snapshot:
    """Reads one copy.

    Raises:
        UserError: It cannot be read, is no snapshot, its checksum is wrong, or it holds what no
            training stores.
    """
    arrays = load_npz(path, ["header", "sha256"])
    try:
        checksum = str(arrays.pop("sha256"))
        snapshot_schema.check_numbers(arrays)
        if checksum != _digest(arrays):
            raise UserError(f"{path}: damaged: its checksum is wrong")
        header = json.loads(arrays.pop("header").tobytes())
        if header.pop("format") != _FORMAT:
            raise ValueError("another version of the format")
        snapshot_schema.check_header(header)
        snapshot_schema.check_metrics(arrays, header["batch"])
        return Snapshot(**header, arrays=arrays)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: no snapshot that this version can read ({error})") from None


@dataclass
class Loaded:
    """A snapshot, and whether the newest copy is the one that was read."""

    snapshot: Snapshot
    newest_is_good: bool


def load(path: str | os.PathLike | None) -> Loaded | None:
    """The newest copy that is whole; `None` if there is none at all.

    Raises:
        UserError: There are copies, but all are damaged.
    """
    if not exists(path):
        return None
    problems = []
    for copy in (Path(path), previous_path(path)):
        if copy.exists():
            try:
                snapshot = read(copy)
            except UserError as error:
                problems.append(str(error))
                continue
            for problem in problems:
                logger.warning(
                    "%s; continuing from %s, which is of %s", problem, copy, snapshot.place
                )
            return Loaded(snapshot, newest_is_good=not problems)
    raise UserError(
        f"--snapshot {path}: no copy can be read ({'; '.join(problems)}); "
        "move the files away to begin anew"
    )


def check_arguments(args: Namespace, snapshot: Snapshot, free: Collection[str]) -> None:
    """Refuses to continue a training with arguments that would make it another one.

    Args:
        args: The resolved arguments of this run.
        snapshot: What it is to continue.
        free: Names of the arguments that may differ.

    Raises:
        UsageError: Arguments differ, or the epochs do not fit; all differences are listed.
    """
    where = f"--snapshot {args.snapshot}"
    now, then = vars(args), snapshot.arguments
    changed = [
        f"--{name} {_show(then.get(name))} became {_show(now.get(name))}"
        for name in sorted(now.keys() | then.keys())
        if name not in free and now.get(name) != then.get(name)
    ]
    if changed:
        raise UsageError(
            f"{where}: belongs to a run with other arguments ({', '.join(changed)}); "
            "give the same ones, or another --snapshot to begin anew"
        )
    begun = snapshot.epoch + bool(snapshot.batch)
    if snapshot.phase != ALL_LAYERS:
        if not args.finetune or begun > (args.finetune_init or 0):
            raise UserError(
                f"{where}: is at {snapshot.place}, where these arguments never are; "
                "give another --snapshot to begin anew"
            )
        return
    # With --images_seen only loading the data tells the epochs, and they are the same.
    if args.epochs is not None and begun > args.epochs:
        raise UsageError(
            f"--epochs {args.epochs}: {where} is already at {snapshot.place}; "
            f"give at least {begun}, or another --snapshot"
        )
    # The command that began at an epoch has to be the one that continues, too.
    if args.initial_epoch not in (None, then.get("initial_epoch"), snapshot.epoch):
        raise UsageError(
            f"--initial_epoch {args.initial_epoch}: {where} has {snapshot.epoch} epochs done; "
            "leave --initial_epoch out, it is known"
        )


def same_log_dir(log_dir: str | None, snapshot: Snapshot) -> bool:
    """Whether the directory holds the history of the run that the snapshot is of.

    It does if it is the one that the snapshot names. One that was moved, or is found by another
    path, is known by its rows: they state seconds, which no two runs share.
    """
    own = snapshot.arguments["log_dir"]
    if not (own and log_dir):
        return False
    if os.path.realpath(own) == os.path.realpath(log_dir):
        return True
    try:
        with open(Path(log_dir) / "history.csv", newline="") as file:
            rows = [
                {name: float(value) for name, value in row.items()} for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, TypeError, csv.Error):
        return False
    # A crash may come between the writing of the two.
    common = list(zip(rows, snapshot.state["EpochReport"]["rows"], strict=False))
    return bool(common) and all(row == expected for row, expected in common)


def _show(value: Any) -> str:
    return "none" if value is None or value == [] else str(value)


def check_data(snapshot: Snapshot, data: dict[str, Any], path: str) -> None:
    """Refuses other data under the same name; other versions of the program's parts are a warning.

    Args:
        snapshot: What is continued.
        data: What this run found.
        path: The snapshot's file, for the message.

    Raises:
        UserError: The images, classes or class embeddings are not those of the snapshot.
    """
    changed = [
        f"{name} {snapshot.data.get(name)} became {value}"
        for name, value in data.items()
        if snapshot.data.get(name) != value
    ]
    if any(not change.startswith("versions ") for change in changed):
        raise UserError(
            f"--snapshot {path}: was made with other data ({', '.join(changed)}); "
            "give the same data, or another --snapshot to begin anew"
        )
    for change in changed:
        logger.warning("--snapshot %s: %s: the results may differ in the last digits", path, change)


def fingerprint(values: Iterable) -> str:
    """A short text that differs where the values do."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(value.tobytes() if isinstance(value, np.ndarray) else f"{value!r}\n".encode())
    return digest.hexdigest()[:16]
