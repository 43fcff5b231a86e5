"""A training on digits that takes a second, started as `learn_classifier.py` starts it."""

import os
import signal

import keras
import numpy as np

import models
import sgdr
from training import data, fitting
from training.devices import distribution
from training.flags import arguments
from training.learning import callbacks, losses
from training.reporting import epochs
from training.resuming import saving, signals

ONE_DEVICE = distribution.Distribution(("cpu:0",), "none")
TIMES = ("seconds", "images_per_second")


class Killed(Exception):
    """Stands for SIGKILL: of the program nothing runs after it."""


class At(keras.callbacks.Callback):
    """Kills the run, or sends it a signal, before a step of the training or of the evaluation."""

    def __init__(self, epoch, step, *, in_evaluation=False, signal=None):
        super().__init__()
        self.place = (epoch, step, in_evaluation)
        self.signal = signal
        self.steps = []

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        self.steps.append((self.epoch, batch))
        self._check(batch, False)

    def on_test_batch_begin(self, batch, logs=None):
        self._check(batch, True)

    def _check(self, batch, in_evaluation):
        if (self.epoch, batch, in_evaluation) == self.place:
            if self.signal is None:
                raise Killed
            os.kill(os.getpid(), self.signal)


def small_model(args):
    """A network that compiles in a second: convolution, batch normalisation, softmax or both."""
    any_size = bool(getattr(args, "finish_size", None))
    side = None if any_size else 8
    images = keras.Input((side, side, 3), name="image")
    x = models.Standardize((127,) * 3, (60,) * 3, name="standardize")(images)
    # Smooth, so that rounding stays rounding: at the kink of a ReLU it becomes another gradient.
    x = keras.layers.Conv2D(4, 3, activation="tanh", name="conv")(x)
    x = models.BatchNormalization(name="bn")(x)
    x = (keras.layers.GlobalMaxPooling2D if any_size else keras.layers.Flatten)(name="flat")(x)
    names = [str(i) for i in range(10)]
    info = {"loss": "cross_entropy", "cls_weight": args.cls_weight, "label_smoothing": 0}
    if args.embedding:
        info["loss"] = "inv_corr"
        x = keras.layers.Dense(10, name="embedding")(x)
        head = models.EmbeddingOutput(10, name="head")
        x = head(x)
        head.class_embeddings.assign(np.eye(10))
    outputs = {"embedding": x} if args.embedding else {}
    if args.cls_weight or not args.embedding:
        outputs["prob"] = keras.layers.Dense(
            10, activation="softmax", dtype="float32", name="prob"
        )(x)
    if len(outputs) == 1:
        [outputs] = outputs.values()
    return models.ImageClassifier(images, outputs, class_names=names, info=info)


# Networks that were trained, with their first values: what is traced for one run serves others.
_pool = {}
# What neither the network nor its step is made of.
_NOT_TRACED = ("snapshot", "log_dir", "epochs", "initial_epoch", "read_workers", "queue_size")
_NOT_TRACED += ("lr_schedule", "max_lr", "max_decay", "sgd_", "sgdr_", "clr_")


def _new_model(args):
    # Here, as TensorFlow forgets with it what it has made of traced steps.
    keras.utils.set_random_seed(args.seed)
    model = small_model(args)
    models.set_batch_norm_groups(model, args.bn_groups // models.num_replicas())
    losses.compile_model(args, model)
    return model


def _state(model):
    return [*model.variables, *model.optimizer.variables]


def _pooled_model(args, devices):
    """A network as `_new_model` makes it, which earlier runs may have trained."""
    given = [f"{k}={v!r}" for k, v in sorted(vars(args).items()) if not k.startswith(_NOT_TRACED)]
    key = (devices, *given)
    if key not in _pool:
        model = _new_model(args)
        fitting.prepare(model)
        first = [keras.ops.convert_to_numpy(variable) for variable in _state(model)]
        _pool[key] = model, first, dict(model.info)
    model, first, info = _pool[key]
    for variable, value in zip(_state(model), first, strict=True):
        variable.assign(value)
    model.info = dict(info)
    return model


class Run:
    """One start of a program that trains on digits, as `learn_classifier.py` does it.

    Args:
        flags: Of the command line.
        interruption: A further callback.
        devices: As the flags would choose them; several have to be there already.
        anew: Makes and traces a network for this run alone.
    """

    def __init__(self, flags, interruption=None, devices=ONE_DEVICE, *, anew=False):
        with devices.scope():
            self._run(flags, interruption, devices, anew)

    def _run(self, flags, interruption, devices, anew):
        args = arguments.training_parser().parse_args(
            [*"--dataset digits-sub3 --val_batch_size 200 --read_workers 1".split(), *flags]
        )
        self.args = args = arguments.check_training_arguments(args)
        self.loaded = arguments.load_snapshot(args)
        dataset = data.load_dataset(args)
        batches = data.make_batches(args, dataset, devices.share)
        train, test = batches.train, batches.validation
        self.test = test, dataset.test.labels
        self.model = _new_model(args) if anew else _pooled_model(args, devices)
        self.history = epochs.EpochReport(
            batches.images_per_epoch, args.epochs, args.log_dir, print_line=False
        )
        schedule = sgdr.with_decay(sgdr.make_schedule(args), args.max_decay, args.epochs)
        self.stop = signals.StopSignals(devices.group)
        watched = [
            *callbacks.learning_rate(schedule, len(train), args),
            callbacks.StopOnDivergence(),
            self.history,
        ]
        if args.snapshot_best:
            path = f"{args.snapshot}.best.keras"
            watched.append(saving.BestModel(path, args.snapshot_best))
        if interruption:
            interruption.history = self.history
            watched.insert(0, interruption)
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        self.stop.install()
        try:
            with self.stop.deferred():
                validation = fitting.Validation(
                    test,
                    dataset.test.labels,
                    top_k=args.top_k_acc,
                    every=args.val_every,
                    also_after=[args.epochs],
                )
                self.progress = fitting.fit(
                    args,
                    self.model,
                    train,
                    validation,
                    watched,
                    self.loaded,
                    epochs=args.epochs,
                    finish=batches.finish,
                    stop=self.stop,
                    data=saving.describe_data(dataset, self.model),
                )
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        self.variables = [keras.ops.convert_to_numpy(v) for v in _state(self.model)]

    @property
    def rows(self):
        return [{k: v for k, v in row.items() if k not in TIMES} for row in self.history.rows]


def assert_same(run, other):
    """Weights, optimiser and history are equal to the last bit."""
    assert run.rows == other.rows
    for array, expected in zip(run.variables, other.variables, strict=True):
        np.testing.assert_array_equal(array, expected)
