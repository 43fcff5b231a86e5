"""What a terminal shows while an epoch is under way."""

import sys
import threading
import time
from argparse import Namespace

import keras

from training.reporting.terminal import duration, write_over

_SECONDS = 0.2


def progress_line(
    args: Namespace, epochs: int, steps: int, title: str = "Epoch"
) -> list[keras.callbacks.Callback]:
    """A `ProgressLine` where there is a terminal that wants it."""
    wanted = sys.stdout.isatty() and not args.no_progress
    return [ProgressLine(epochs, steps, title)] if wanted else []


class ProgressLine(keras.callbacks.Callback):
    """One line that is written over again and fits the terminal; gone when the epoch is over.

    Args:
        epochs: Epochs of the whole training.
        steps: Steps of an epoch.
        title: How the line begins.
    """

    async_safe = True  # the device does not wait for the numbers; see `StopOnDivergence`

    def __init__(self, epochs: int, steps: int, title: str = "Epoch"):
        super().__init__()
        self.epochs = epochs
        self.steps = steps
        self.title = title
        self._lock = threading.Lock()
        self._done: int | None = None
        self._shown = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        with self._lock:
            self.epoch, self._done, self._first = epoch, 0, None
            self._started = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        with self._lock:
            # Threads come by in any order, some after the epoch's end.
            if self._done is None or batch < self._done:
                return
            now, self._done = time.monotonic(), batch
            if self._first is None:
                self._first = now, batch  # the first step takes longer than all others
            if now < self._shown + _SECONDS:
                return
            self._shown = now
            text = f"{self.title} {self.epoch + 1}/{self.epochs}, step {batch + 1}/{self.steps}"
            since, steps = now - self._first[0], batch - self._first[1]
            if steps:
                text += f", {duration(since / steps * (self.steps - batch - 1))} left"
            scores = {name: value for name, value in logs.items() if "mean_loss" not in name}
            text += "".join(f" - {name}: {float(value):.4f}" for name, value in scores.items())
            write_over(text, sys.stdout)

    def on_test_batch_begin(self, batch, logs=None):
        now = time.monotonic()
        if now >= self._shown + _SECONDS:
            self._shown = now
            text = f"{self.title} {self.epoch + 1}/{self.epochs}, evaluating: {batch + 1}"
            write_over(text, sys.stdout)

    def on_epoch_end(self, epoch, logs=None):
        with self._lock:
            self._done = None
            write_over("", sys.stdout)

    def on_train_end(self, logs=None):
        self.on_epoch_end(None)
