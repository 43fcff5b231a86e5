"""Learning-rate schedules as pure functions of the epoch (`training.learning` applies them).

Warm restarts: Loshchilov & Hutter, *SGDR: Stochastic Gradient Descent with Warm Restarts*, ICLR
2017 (arXiv 1608.03983). Cyclical rates: Smith, *Cyclical Learning Rates for Training Neural
Networks*, WACV 2017 (arXiv 1506.01186). Epochs and steps count from 0 throughout.
"""

import math
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from utils import UsageError

SCHEDULES = ("SGDR", "SGD", "CLR", "ResNet-Schedule", "cosine")

SGDR_MIN_RATE = 1e-6
SGDR_CYCLES = 5
CLR_LEGS = 20  # 240 epochs with legs of 12
COSINE_EPOCHS = 100


def sgdr_rate(epoch: int, max_rate: float, base_len: int = 12, mul: int = 2) -> float:
    """Cosine annealing with warm restarts, constant within an epoch.

    The first epoch of a cycle runs at the maximum, the next ones already one step further down
    the cosine than their index, so that the last epoch of a cycle runs at the minimum of 1e-6.

    Args:
        epoch: Index of the epoch.
        max_rate: The rate after each restart.
        base_len: Epochs of the first cycle.
        mul: Factor between the lengths of consecutive cycles.
    """
    length, index = base_len, epoch
    while index >= length:
        index -= length
        length *= mul
    if index == 0:
        return max_rate
    cosine = math.cos(math.pi * (index + 1) / length)
    return SGDR_MIN_RATE + 0.5 * (max_rate - SGDR_MIN_RATE) * (1 + cosine)


def sgdr_epochs(base_len: int = 12, mul: int = 2, cycles: int = SGDR_CYCLES) -> int:
    """Epochs of whole cycles: 12 + 24 + 48 + 96 + 192 = 372 by default."""
    return sum(base_len * mul**cycle for cycle in range(cycles))


def sgdr_cycle_ends(epochs: int, base_len: int = 12, mul: int = 2) -> list[int]:
    """After how many epochs a cycle is complete, up to `epochs`: 12, 36, 84, 180, 372, …"""
    ends, length = [], base_len
    while (end := sum(ends[-1:]) + length) <= epochs:
        ends.append(end)
        length *= mul
    return ends


def resnet_rate(epoch: int) -> float:
    """The CIFAR schedule of He et al., 164 epochs with one epoch of warm-up."""
    if epoch < 1:
        return 0.01
    if epoch < 80:
        return 0.1
    return 0.01 if epoch < 120 else 0.001


def triangular_rate(position: float, leg: float, min_rate: float, max_rate: float) -> float:
    """A rate that climbs from minimum to maximum and back.

    Args:
        position: Time since the start, in epochs (with fractions).
        leg: Length of the climb, in epochs; the way back takes as long.
        min_rate: The rate at position 0.
        max_rate: The rate at position `leg`.
    """
    distance = abs(position / leg % 2 - 1)
    return min_rate + (max_rate - min_rate) * (1 - distance)


def cosine_rate(progress: float, max_rate: float, warmup: float = 0.0) -> float:
    """A rate that climbs in a line from 0, and then falls along half a cosine to 0.

    Args:
        progress: The part of the training that is done, in 0 to 1.
        max_rate: The rate in between.
        warmup: The share of the training in which it climbs.
    """
    if progress < warmup:
        return max_rate * progress / warmup
    return 0.5 * max_rate * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def parse_steps(text: str) -> tuple[list[tuple[int, float]], int]:
    """Reads `--sgd_schedule`, as in `1:0.1,31:0.01,41:0.001,50`.

    Returns:
        The pairs (epoch's index, rate from there on), the first at 0, and the number of epochs.
        The text counts epochs from 1.

    Raises:
        UsageError: The text is not of that form.
    """
    *points, last = text.split(",")
    try:
        steps = []
        for point in points:
            epoch, rate = point.split(":")
            steps.append((int(epoch) - 1, float(rate)))
        epochs = int(last)
    except ValueError:
        raise UsageError(
            f"--sgd_schedule {text}: expected FIRST_EPOCH:RATE,…,LAST_EPOCH, "
            "as in 1:0.1,31:0.01,41:0.001,50"
        ) from None
    starts = [start for start, _ in steps]
    if not steps or starts[0] != 0 or starts != sorted(set(starts)) or starts[-1] >= epochs:
        raise UsageError(
            f"--sgd_schedule {text}: the epochs must start at 1 and ascend up to the last one"
        )
    if epochs >= 10**18:
        raise UsageError(f"--sgd_schedule {text}: expected less than 1e+18 epochs")
    if not all(math.isfinite(rate) and rate >= 0 for _, rate in steps):
        raise UsageError(f"--sgd_schedule {text}: learning rates must be finite and not negative")
    return steps, epochs


def step_rate(epoch: int, steps: Sequence[tuple[int, float]]) -> float:
    """The rate of the last of `steps` (epoch's index, rate) that has begun."""
    return next(rate for start, rate in reversed(steps) if epoch >= start)


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule with its parameters.

    Attributes:
        epochs: The number of epochs where `--epochs` does not say.
        rate: The rate by the position in the training: epochs since the start, with fractions
            within an epoch.
        within_epoch: Whether the rate changes from step to step, not only between epochs.
        follows_loss: Whether the rate also falls when the validation loss stagnates.
        cycle_ends: After how many epochs a cycle of warm restarts is complete, up to a number of
            epochs; none for a schedule without them.
    """

    epochs: int
    rate: Callable[[float], float]
    within_epoch: bool = False
    follows_loss: bool = False
    cycle_ends: Callable[[int], list[int]] = lambda epochs: []

    def describe(self, epochs: int) -> str:
        """How long a training is, and whether it ends with a cycle.

        Args:
            epochs: Epochs of the whole training.
        """
        ends = self.cycle_ends(max(epochs, self.epochs))
        length = "1 epoch" if epochs == 1 else f"{epochs} epochs"
        if not ends:
            return length
        within = [str(end) for end in ends if end <= epochs]
        if str(epochs) in within:
            return f"{length}; cycles of the learning rate end after {', '.join(within)}"
        fitting = ", ".join(map(str, ends[:5])) + ", …"
        return (
            f"{length}, ending within a cycle of the learning rate, before it is at its "
            f"lowest (--epochs {fitting} would end one)"
        )


def make_schedule(args: Namespace, images_per_epoch: int | None = None) -> Schedule:
    """The schedule that resolved arguments ask for: `lr_schedule` and those it has of its own.

    Args:
        args: Resolved arguments.
        images_per_epoch: With it the legs of CLR have as many steps as in the original, which
            counts only the whole batches of an epoch, and the cosine gives a step the rate at its
            middle, so that neither the first nor the last one is without effect.
    """
    leg, half_step = args.clr_step_len, 0.0
    if images_per_epoch:
        steps = math.ceil(images_per_epoch / args.batch_size)
        leg *= max(1, images_per_epoch // args.batch_size) / steps
        half_step = 0.5 / steps
    match args.lr_schedule:
        case "SGDR":
            return Schedule(
                sgdr_epochs(args.sgdr_base_len, args.sgdr_mul),
                lambda position: sgdr_rate(
                    int(position), args.sgdr_max_lr, args.sgdr_base_len, args.sgdr_mul
                ),
                cycle_ends=lambda epochs: sgdr_cycle_ends(
                    epochs, args.sgdr_base_len, args.sgdr_mul
                ),
            )
        case "CLR":
            return Schedule(
                CLR_LEGS * args.clr_step_len,
                lambda position: triangular_rate(position, leg, args.clr_min_lr, args.clr_max_lr),
                within_epoch=True,
            )
        case "cosine":
            epochs = args.epochs or COSINE_EPOCHS
            return Schedule(
                epochs,
                lambda position: cosine_rate(
                    (position + half_step) / epochs, args.max_lr, args.warmup
                ),
                within_epoch=True,
            )
        case "ResNet-Schedule":
            return Schedule(164, lambda position: resnet_rate(int(position)))
        case "SGD" if args.sgd_schedule:
            steps, epochs = parse_steps(args.sgd_schedule)
            return Schedule(epochs, lambda position: step_rate(int(position), steps))
        case "SGD":
            return Schedule(200, lambda position: args.sgd_lr, follows_loss=True)
    raise ValueError(f"unknown schedule {args.lr_schedule!r}")


def with_decay(schedule: Schedule, max_decay: float, epochs: int) -> Schedule:
    """Multiplies a schedule by a 1/t decay per step that ends at `max_decay`.

    Args:
        schedule: The schedule.
        max_decay: The factor after the last epoch, in (0, 1], or 0 for no decay (`--max_decay`).
        epochs: Epochs of the whole training.
    """
    if not max_decay:
        return schedule
    slope = (1 / max_decay - 1) / epochs
    return replace(
        schedule,
        rate=lambda position: schedule.rate(position) / (1 + slope * position),
        within_epoch=True,
    )
