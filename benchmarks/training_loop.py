"""What the benchmarks of the training loop share: flags, the loop itself, and turns in rounds."""

import copy
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training import quiet_start  # noqa: F401  # before Keras

# isort: split
import keras
import numpy as np

from learn_classifier import build_classifier
from training import data, memory
from training.devices.distribution import Distribution
from training.devices.flags import batch_multiple
from training.flags import arguments
from training.flags.parser import Parser, number
from utils import UsageError

KINDS = CONSTANT, REAL = "constant batch", "real images"
ONE_STEP = "a single step"


def training_parser(description: str) -> Parser:
    """The flags of a training, and how long to measure."""
    parser = arguments.training_parser()
    parser.description = description
    group = parser.add_argument_group("benchmark")
    group.add_argument(
        "--steps", type=number(int, least=1), default=20, metavar="N", help="per round"
    )
    group.add_argument(
        "--rounds",
        type=number(int, least=1),
        default=3,
        metavar="N",
        help="of everything that is compared, in turns",
    )
    return parser


def check_arguments(args: Namespace) -> Namespace:
    """As `arguments.check_training_arguments`; refuses what is not measured."""
    if args.coordinator is not None or (args.num_processes or 1) > 1:
        raise UsageError("--coordinator and --num_processes: one process only is measured")
    if args.accumulate_steps > 1:
        raise UsageError("--accumulate_steps: is not measured; use a smaller --batch_size")
    return arguments.check_training_arguments(args)


def describe(args: Namespace) -> str:
    """What is trained, in words."""
    return (
        f"{args.architecture}, {args.dataset} at {args.image_size} x {args.image_size}, "
        f"batch {args.batch_size}, {args.precision}, {args.read_workers} workers"
    )


class ConstantBatch(keras.utils.PyDataset):
    """One batch, again and again."""

    def __init__(self, batch, steps):
        super().__init__()
        self.batch, self.steps = batch, steps

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        return self.batch


class EpochTime(keras.callbacks.Callback):
    """The seconds of an epoch: its batches, its steps, and its metrics in the end."""

    def on_epoch_begin(self, epoch, logs=None):
        self._begin = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds = time.perf_counter() - self._begin


class Training:
    """What learn_classifier.py trains with these arguments, in epochs of `args.steps` steps.

    Args:
        args: Resolved arguments.
        dataset: The data set, as loaded.
        devices: What shares the batches.
    """

    def __init__(self, args: Namespace, dataset, devices: Distribution):
        self.devices = devices
        self.images = args.steps * args.batch_size
        dataset = copy.copy(dataset)
        dataset.train = dataset.train.take(np.arange(self.images) % len(dataset.train))
        dataset.train_repeats = 1
        with devices.scope():
            self.model = build_classifier(args, dataset)
        real = dataset.train_batches(
            args.batch_size,
            seed=args.seed,
            multiple=batch_multiple(args),
            **data.reading_options(args),
            label_keys=("embedding", "prob") if args.cls_weight else None,
        )
        self._batches = {
            CONSTANT: ConstantBatch(real[0], args.steps),
            REAL: real,
            ONE_STEP: ConstantBatch(real[0], 1),
        }

    def seconds(self, kind: str, limits: Callable[[], None] = memory.keep_freed) -> float:
        """Trains an epoch.

        Args:
            kind: `CONSTANT`, `REAL` or, for an epoch of one step on a constant batch, `ONE_STEP`.
        """
        clock = EpochTime()
        with self.devices.scope():
            self.model.fit(
                self._batches[kind],
                epochs=1,
                shuffle=False,
                verbose=0,
                callbacks=[memory.KeepFreed(limits), clock],
            )
        return clock.seconds


def take_turns(
    trainings: dict[Any, Training], rounds: int, kinds: Sequence[str] = KINDS
) -> dict[tuple[Any, str], list[float]]:
    """The seconds of epochs by name and kind of batches.

    All take turns, so that a machine whose speed changes disturbs none of them alone; the fastest
    round is the one least disturbed.

    Args:
        trainings: What is compared.
        rounds: Epochs of each, after one that compiles and reads the first pages of the files.
        kinds: Of batches.
    """
    times = {(name, kind): [] for kind in kinds for name in trainings}
    for turn in range(rounds + 1):
        for (name, kind), seconds in times.items():
            taken = trainings[name].seconds(kind)
            if turn:
                seconds.append(taken)
    return times
