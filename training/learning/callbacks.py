"""What steers a training between its steps: the learning rate, and the end of one that diverged."""

import math
from argparse import Namespace

import keras

from sgdr import Schedule
from training.devices import distribution
from utils import UserError


class LearningRate(keras.callbacks.Callback):
    """Sets the learning rate of a schedule before every epoch, or every step where it changes.

    Args:
        schedule: The schedule.
        steps_per_epoch: Steps of an epoch.
        parts: Steps that share a rate, as they compute parts of one batch.
    """

    def __init__(self, schedule: Schedule, steps_per_epoch: int, parts: int = 1):
        super().__init__()
        self.schedule = schedule
        self.steps_per_epoch = steps_per_epoch
        self.parts = parts
        self.epoch = 0
        self.plateau_factor = 1.0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.last_scheduled = self._set(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        if self.schedule.within_epoch:
            begun = batch - batch % self.parts
            self.last_scheduled = self._set(self.epoch + begun / self.steps_per_epoch)

    def on_epoch_end(self, epoch, logs=None):
        # `ReduceLROnPlateau` scales the optimiser's rate where it stands; carry that over.
        if self.schedule.follows_loss:
            self.plateau_factor *= current_rate(self.model) / self.last_scheduled

    def _set(self, position):
        rate = self.schedule.rate(position) * self.plateau_factor
        self.model.optimizer.learning_rate = distribution.replicated(rate)
        return current_rate(self.model)


def learning_rate(
    schedule: Schedule, steps_per_epoch: int, args: Namespace
) -> list[keras.callbacks.Callback]:
    """The callbacks that make a schedule happen; `args` say what a plateau is."""
    callbacks: list[keras.callbacks.Callback] = [
        LearningRate(schedule, steps_per_epoch, args.accumulate_steps)
    ]
    if schedule.follows_loss:
        # First, so that `LearningRate` sees what it did.
        callbacks.insert(
            0,
            keras.callbacks.ReduceLROnPlateau(
                monitor="val_loss",
                mode="min",
                patience=args.sgd_patience,
                min_lr=args.sgd_min_lr,
            ),
        )
    return callbacks


def current_rate(model: keras.Model) -> float:
    """The learning rate that a compiled model's optimiser is at."""
    return float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))


class Diverged(UserError):
    """The loss is NaN or infinite."""


class StopOnDivergence(keras.callbacks.Callback):
    """Ends the run with `Diverged` at the first step whose loss is not finite.

    Keras logs the mean loss since the epoch began, which stays NaN or infinite from that step on.
    """

    # Keras then reads the losses in threads of its own, so that the device never waits for them.
    # The training stops a few steps later, and the first bad step is still the one named.
    async_safe = True

    def __init__(self):
        super().__init__()
        self.bad_steps: list[int] = []  # in the order in which the threads come by

    def on_train_batch_end(self, batch, logs=None):
        if not math.isfinite(logs["loss"]):
            self.bad_steps.append(batch)
            # `self.model` would copy JAX's whole state back; the flag needs none of it.
            self._model.stop_training = True

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_test_begin(self, logs=None):
        self._raise_if_diverged()  # before the validation, which would be of no use

    def on_epoch_end(self, epoch, logs=None):
        self._raise_if_diverged()
        if not math.isfinite(logs.get("val_loss", 0.0)):
            self._stop("validation loss", "")

    def _raise_if_diverged(self):
        if self.bad_steps:
            self._stop("loss", f", step {min(self.bad_steps) + 1}")

    def _stop(self, what, step):
        raise Diverged(
            f"the {what} is no longer finite in epoch {self.epoch + 1}{step}, at learning rate "
            f"{current_rate(self.model):.6g}: try a lower one, or a lower --clipgrad"
        )
