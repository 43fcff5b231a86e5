"""Training that can be interrupted anywhere and goes on where it was."""

import logging
import math
import os
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

import models
from training.devices import distribution
from training.learning import callbacks
from training.reporting import epochs, report
from training.resuming import snapshots
from training.resuming.signals import StopSignals
from training.resuming.snapshots import Snapshot
from utils import UserError

logger = logging.getLogger(__name__)


class BestModel(keras.callbacks.Callback):
    """Keeps the model of the epoch that is best by one metric, as a `.keras` file.

    Args:
        path: The file.
        metric: A column of `history.csv`; losses are better when smaller, accuracies when greater.
    """

    def __init__(self, path: str, metric: str):
        super().__init__()
        self.path = path
        self.metric = metric
        self.best: dict[str, float] = {}

    def on_epoch_end(self, epoch, logs=None):
        value = epochs.epoch_scores(logs).get(self.metric)
        if value is None:
            return  # an epoch without an evaluation
        best = self.best.get(self.metric)
        better = best is None or (value < best if self.metric.endswith("loss") else value > best)
        if not better:
            return
        try:
            models.save_model(self.model, self.path)
        except OSError as error:
            logger.warning(
                "warning: %s: not written (%s); the one before stays, and the next better epoch "
                "tries again",
                self.path,
                error.strerror or error,
            )
            return
        self.best = {self.metric: value}


# What callbacks have to remember, by their class.
_REMEMBERED = {
    keras.callbacks.ReduceLROnPlateau: ("best", "wait", "cooldown_counter"),
    callbacks.LearningRate: ("plateau_factor",),
    BestModel: ("best",),
    epochs.EpochReport: ("rows", "seconds_in_epoch"),
}

# The rate that a schedule takes from the command line.
_RATE_FLAGS = {"SGDR": "sgdr_max_lr", "SGD": "sgd_lr", "CLR": "clr_max_lr", "cosine": "max_lr"}


def make_deterministic() -> None:
    """Chooses operations that give the same in every run; call it before the first of them."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif keras.backend.backend() == "jax":
        # Read when the first device is used. On CPUs JAX is deterministic as it is.
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()


def describe_data(dataset, model) -> dict[str, Any]:
    """What has to be the same for a training to go on: images, classes and their embeddings.

    Args:
        dataset: The data set.
        model: The network, before a snapshot's weights replace the class embeddings.
    """
    embeddings = model.class_embeddings
    splits = filter(None, (dataset.train, dataset.test, dataset.validation))
    return {
        "training images": len(dataset.train) * dataset.train_repeats,
        "test images": len(dataset.test),
        "labels": snapshots.fingerprint([split.labels for split in splits]),
        "classes": snapshots.fingerprint([dataset.class_ids, dataset.class_names]),
        "mean and std": snapshots.fingerprint([dataset.mean, dataset.std]),
        "class embeddings": snapshots.fingerprint([] if embeddings is None else [embeddings]),
        **{f"versions {name}": version for name, version in report.versions().items()},
    }


def _build_optimizer(model) -> None:
    # Keras' loss scaling makes its variables anew each time.
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def _variables(model) -> dict[str, Any]:
    # By their order: the names of optimisers depend on how many there were before.
    groups = {"model": model.variables, "optimizer": model.optimizer.variables}
    return {
        f"{group}.{i}": variable
        for group, variables in groups.items()
        for i, variable in enumerate(variables)
    }


def _arrays(variables: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: ops.convert_to_numpy(variable) for name, variable in variables.items()}


def _form(values) -> tuple:
    dtype = np.dtype(values.dtype)
    # Integers may be of another size, as the backends' counters are.
    return tuple(values.shape), dtype.name if dtype.kind == "f" else dtype.kind


def _assign(variables: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    forms = {name: _form(variable) for name, variable in variables.items()}
    if forms != {name: _form(array) for name, array in arrays.items()}:
        raise UserError(
            "the snapshot holds other variables than this version's network and optimiser have; "
            "give another --snapshot to begin anew"
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])


def restore(model: keras.Model, loaded: snapshots.Loaded, data: dict[str, Any], path: str) -> None:
    """Puts a compiled model and its optimiser into a snapshot's state, and says so.

    Raises:
        UserError: The snapshot is of other data, or of another version's network.
    """
    snapshot = loaded.snapshot
    snapshots.check_data(snapshot, data, path)
    print(f"resuming from {path}, {snapshot.place}", flush=True)
    _build_optimizer(model)
    arrays = {k: v for k, v in snapshot.arrays.items() if not k.startswith("metric.")}
    _assign(_variables(model), arrays)


class Snapshots(keras.callbacks.Callback):
    """Writes snapshots and ends the run on a signal; has to be the last callback.

    Args:
        args: The resolved arguments.
        watched: The other callbacks, whose state is kept and restored.
        stop: The signals.
        data: As `describe_data` made it.
        steps_per_epoch: Steps of an epoch.
        loaded: What the run continues, or `None`.
        phase: What is trained (`Snapshot.phase`).
        new_layers: The layers that fine-tuning found no weights for.
        seconds_before: Time of what was trained before this, where nothing is continued.
    """

    def __init__(
        self,
        args: Namespace,
        watched: list[keras.callbacks.Callback],
        stop: StopSignals,
        data: dict[str, Any],
        steps_per_epoch: int,
        loaded: snapshots.Loaded | None,
        *,
        phase: str = snapshots.ALL_LAYERS,
        new_layers: Sequence[str] = (),
        seconds_before: float = 0.0,
    ):
        super().__init__()
        self.args = args
        self.watched = watched
        self.stop = stop
        if args.snapshot is None:
            self.stop.advice = "; nothing was saved, as there was no --snapshot"
        self.data = data
        self.steps_per_epoch = steps_per_epoch
        self.last_place: str | None = None
        self._newest_is_good = loaded.newest_is_good if loaded else True
        self._started = time.perf_counter()
        self._seconds_before = seconds_before
        self._phase = {"phase": phase, "new_layers": list(new_layers)}
        self._state: dict[str, dict[str, Any]] = {}
        self._metrics: list[np.ndarray] = []
        self._begun = False
        self.epoch, self.batch = 0, 0
        if phase == snapshots.ALL_LAYERS:
            self.epoch = args.initial_epoch or 0
        if loaded:
            snapshot = loaded.snapshot
            self.epoch, self.batch = snapshot.epoch, snapshot.batch
            self._state = dict(snapshot.state)
            self._seconds_before = self._state.pop("run")["seconds"]
            names = [name for name in snapshot.arrays if name.startswith("metric.")]
            self._metrics = [snapshot.arrays[f"metric.{i}"] for i in range(len(names))]

    @property
    def seconds(self) -> float:
        """Time of this run and of those that it continues."""
        return self._seconds_before + time.perf_counter() - self._started

    def on_train_begin(self, logs=None):
        # `ReduceLROnPlateau` forgets everything here, just before.
        for callback in self.watched:
            remembered = self._state.get(type(callback).__name__)
            if remembered:
                for name in _REMEMBERED[type(callback)]:
                    setattr(callback, name, remembered[name])
        if not self._begun:
            # Before a snapshot of this run takes the place of one that may be good.
            self._check_place()
            # From here on a crash finds a snapshot that knows this run's log directory.
            self._begun = True
            _build_optimizer(self.model)
            self._save(self.epoch, self.batch, self._metrics)

    def _check_place(self):
        if self.batch > self.steps_per_epoch:
            raise UserError(
                f"--snapshot {self.args.snapshot}: is of step {self.batch} of an epoch of "
                f"{self.steps_per_epoch}; give another --snapshot to begin anew"
            )
        if self._metrics:
            forms = [_form(variable) for variable in self.model.metrics_variables]
            if forms != [_form(values[0]) for values in self._metrics]:
                raise UserError(
                    f"--snapshot {self.args.snapshot}: holds other metrics than this version's "
                    "network has; give another --snapshot to begin anew"
                )

    def on_train_end(self, logs=None):
        self._state = self._remember()

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        if self._metrics:
            for variable, value in zip(self.model.metrics_variables, self._metrics, strict=True):
                distribution.assign_replica_values(variable, value)
            self._metrics = []

    def on_train_batch_begin(self, batch, logs=None):
        stopping = self.stop.is_due()
        if stopping or (batch and self._is_due()):
            self._save(self.epoch, batch, self._metric_values() if batch else [])
        if stopping:
            self.stop.stop()

    def on_test_begin(self, logs=None):
        if self._is_due():
            self._save(self.epoch, self.steps_per_epoch, self._metric_values())
        self._stop_in_evaluation()

    def on_test_batch_begin(self, batch, logs=None):
        self._stop_in_evaluation()

    def on_epoch_end(self, epoch, logs=None):
        self._save(epoch + 1, 0, [])
        if self.stop.is_due():
            self.stop.stop()

    def _stop_in_evaluation(self):
        if self.stop.is_due():
            self._save(self.epoch, self.steps_per_epoch, self._metric_values())
            self.stop.stop()

    def _is_due(self):
        every = self.args.snapshot_every
        return every is not None and time.perf_counter() - self._saved_at >= every

    def _metric_values(self):
        return [distribution.replica_values(v) for v in self.model.metrics_variables]

    def _remember(self):
        return {
            type(callback).__name__: {
                name: getattr(callback, name) for name in _REMEMBERED[type(callback)]
            }
            for callback in self.watched
            if type(callback) in _REMEMBERED
        }

    def _save(self, epoch, batch, metrics):
        path = self.args.snapshot
        self._saved_at = time.perf_counter()
        if path is None:
            return
        arrays = _arrays(_variables(self.model))
        arrays |= {f"metric.{i}": value for i, value in enumerate(metrics)}
        if not all(math.isfinite(array.sum(dtype="float64")) for array in arrays.values()):
            return  # a diverged training must not replace the last good state
        snapshot = Snapshot(
            vars(self.args),
            epoch,
            batch,
            arrays,
            state={**self._remember(), "run": {"seconds": self.seconds}},
            data=self.data,
            **self._phase,
        )
        try:
            snapshots.write(path, snapshot, keep_previous=self._newest_is_good)
        except OSError as error:
            logger.warning(
                "warning: --snapshot %s: not written (%s); the one before stays, and it is tried "
                "again later",
                path,
                error.strerror or error,
            )
            return
        self._newest_is_good = True
        self.last_place = snapshot.place
        command = shlex.join(["python", *sys.argv])
        self.stop.advice = f"; {path} is of {snapshot.place}; to resume: {command}"

    @property
    def advice_after_divergence(self) -> str:
        """Where to go on with a lower rate; empty without a snapshot."""
        if self.last_place is None:
            return ""
        flag = _RATE_FLAGS.get(self.args.lr_schedule, "clipgrad")
        if self.args.sgd_schedule:
            flag = "sgd_schedule"
        return (
            f"; {self.args.snapshot} is of {self.last_place}, before that: to go on from there, "
            f"repeat the command with another --{flag} and --snapshot_allow {flag}"
        )
