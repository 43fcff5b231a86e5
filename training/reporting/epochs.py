"""The report of every epoch: a line, a row of `history.csv`, and TensorBoard events."""

import csv
import io
import logging
import os
import platform
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from training.learning.callbacks import current_rate
from training.reporting.terminal import duration
from utils import atomic_path

logger = logging.getLogger(__name__)


class EpochReport(keras.callbacks.Callback):
    """Keeps a row of every epoch, prints it, and writes `history.csv` and TensorBoard events.

    A row has `epoch` (from 1), `learning_rate` (of the epoch's last step), losses and accuracies,
    `seconds` (of the epoch with its validation) and `images_per_second` (of its training alone).
    The rows of a run that is resumed are put back into `rows`, and its files are continued.

    Args:
        num_images: Training images of an epoch.
        epochs: Epochs of the whole training.
        log_dir: Directory for `history.csv` and events, or `None`.
        print_line: Whether to print a line per epoch, and after the first the time that is left.
        title: How such a line begins.
    """

    def __init__(
        self,
        num_images: int,
        epochs: int,
        log_dir: str | None,
        print_line: bool = True,
        title: str = "Epoch",
    ):
        super().__init__()
        self.title = title
        self.num_images = num_images
        self.epochs = epochs
        self.log_dir = Path(log_dir) if log_dir else None
        self.print_line = print_line
        self.rows: list[dict[str, float]] = []
        self.started: float | None = None
        self.seconds_before = 0.0
        self._said_time_left = False
        self.events_path: Path | None = None
        self.rows_in_events: int | None = None
        if self.log_dir:
            self.log_dir.mkdir(parents=True, exist_ok=True)

    @property
    def seconds_in_epoch(self) -> float:
        """How long the epoch that is under way has taken so far."""
        return 0.0 if self.started is None else time.perf_counter() - self.started

    @seconds_in_epoch.setter
    def seconds_in_epoch(self, seconds: float) -> None:
        self.seconds_before = seconds

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter() - self.seconds_before
        self.seconds_before = 0.0
        self.trained = None
        self._steps, self._first_step = 0, self.started

    def on_train_batch_end(self, batch, logs=None):
        self._steps += 1
        if self._steps == 1:
            self._first_step = time.perf_counter()

    def on_test_begin(self, logs=None):
        self.trained = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        now = time.perf_counter()
        trained = self.trained or now
        scores = epoch_scores(logs)
        trained_scores = [name for name in scores if not name.startswith("val_")]
        row = {
            "epoch": epoch + 1,
            "learning_rate": current_rate(self.model),
            **{name: scores[name] for name in trained_scores},
            # An epoch that was not evaluated has the same columns, without values.
            **{f"val_{name}": scores.get(f"val_{name}") for name in trained_scores},
            "seconds": now - self.started,
            "images_per_second": self.num_images / (trained - self.started),
        }
        self.started = None
        self.rows.append(row)
        if self.print_line:
            print(epoch_line(row, self.epochs, self.title), flush=True)
            self._say_time_left(row, trained, now)
        self._write()

    def _say_time_left(self, row, trained, now):
        left = self.epochs - row["epoch"]
        if not self._said_time_left and left:
            seconds = row["seconds"]
            if self._steps > 1:  # the first one was compiled
                step = (trained - self._first_step) / (self._steps - 1)
                seconds = step * self.params.get("steps", self._steps) + now - trained
            print(f"about {duration(left * seconds)} left at the speed of this epoch", flush=True)
        self._said_time_left = True

    def _write(self):
        if self.log_dir is None:
            return
        try:
            self._write_events()
            self._write_history()
        except OSError as error:
            logger.warning(
                "warning: --log_dir %s: not written (%s); the next epoch tries again",
                self.log_dir,
                error.strerror or error,
            )

    def _write_history(self):
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self.rows[-1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        with atomic_path(self.log_dir / "history.csv") as path:
            path.write_text(text.getvalue())

    def _write_events(self):
        from tensorboardX.proto.event_pb2 import SessionLog
        from tensorboardX.summary import scalar

        if self.rows_in_events is None:
            continued = (self.log_dir / "history.csv").exists()
            self.rows_in_events = len(self.rows) - 1 if continued else 0
        rows = self.rows[self.rows_in_events :]
        # The next rows go to another file if this fails midway.
        path, self.events_path = self.events_path, None
        events = []
        if path is None:
            first = rows[0]["epoch"]
            start = SessionLog(status=SessionLog.START)
            events = [{"file_version": "brain.Event:2"}]
            if any(self.log_dir.glob("events.out.tfevents.*")):
                # Hides what an interrupted run wrote of the epochs that are repeated.
                events.append({"step": first, "session_log": start})
            name = f"events.out.tfevents.{int(time.time())}.{platform.node()}.{os.getpid()}.{first}"
            path = self.log_dir / name
        events += [
            {"step": row["epoch"], "summary": scalar(name, value)}
            for row in rows
            for name, value in row.items()
            if name != "epoch" and value is not None
        ]
        append_events(path, events)
        self.rows_in_events = len(self.rows)
        self.events_path = path

    def on_train_end(self, logs=None):
        if self.rows and self.rows_in_events is None:
            self._write()  # a finished run that is repeated with another directory

    def best_epoch(self, name: str) -> dict[str, float]:
        """The first of the rows whose accuracy `name` is the greatest."""
        judged = (row for row in self.rows if row[name] is not None)
        return max(judged, key=lambda row: row[name])


def append_events(path: Path, events: Sequence[dict[str, Any]]) -> None:
    """Appends to a TensorBoard event file; when this returns, it is there.

    TensorBoard's own writer needs TensorFlow, which is absent with JAX, and that of tensorboardX
    writes later, in a thread that waits for ever once the disk was full.

    Args:
        path: The file.
        events: Fields of the `Event` protocol buffers, which get the present time.
    """
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    records = []
    for fields in events:
        data = Event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(data))
        # The format of a TFRecord.
        records += [length, struct.pack("<I", masked_crc32c(length))]
        records += [data, struct.pack("<I", masked_crc32c(data))]
    with open(path, "ab") as file:
        file.write(b"".join(records))


def epoch_scores(logs: dict[str, float]) -> dict[str, float]:
    """The losses and accuracies of an epoch's logs.

    Keras' own averages of losses are not those of the images: it counts a batch that was filled up
    by its size, and of a loss that belongs to one of two outputs it averages batches on
    TensorFlow. `mean_loss` is our own average.
    """
    means = {name.replace("mean_loss", "loss"): name for name in logs if "mean_loss" in name}
    return {
        name: float(logs[means.get(name, name)])
        for name in logs
        if "mean_loss" not in name and name != "learning_rate"
    }


def epoch_line(row: dict[str, float], epochs: int, title: str = "Epoch") -> str:
    """One line of an epoch's row, as the published `grep` for `val_acc: 0.dddd` expects it.

    Always in fixed-point notation: Keras' own line has `1.0000e-03` for 0.001, of which that
    `grep` takes the 1.0000 for the accuracy.
    """
    parts = [
        f"{title} {row['epoch']}/{epochs}",
        f"{row['seconds']:.1f}s",
        f"{row['images_per_second']:.0f} images/s",
        f"learning_rate: {row['learning_rate']:.6g}",
    ]
    hidden = ("epoch", "seconds", "images_per_second", "learning_rate")
    parts += [
        f"{name}: {value:.4f}"
        for name, value in row.items()
        if name not in hidden and value is not None
    ]
    return " - ".join(parts)
