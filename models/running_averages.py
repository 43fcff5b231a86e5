"""The running averages of batch normalisation: of one layer, or of all that a step goes through.

TensorFlow traces a step's operations one by one and then optimises them, and an update has some
twenty: for 110 layers together they are a quarter of all that a training step is made of. At the
end of a step, one update of vectors joined of all layers does the same.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from models.replicas import num_replicas


class Statistics(NamedTuple):
    """What a layer found in a batch.

    Attributes:
        layer: The `BatchNormalization`.
        size: The number of values of the batch, all channels together.
        mean: `(channels,)`, over its groups, see `BatchNormalization`.
        variance: Likewise.
    """

    layer: Any
    size: Any
    mean: Any
    variance: Any


class _Waiting(threading.local):
    """The updates that wait for the end of this thread's step, by layer; `None` outside of one."""

    statistics: dict[int, Statistics] | None = None


_waiting = _Waiting()


@contextlib.contextmanager
def updated_together() -> Iterator[None]:
    """Within it updates wait for its end. (Not on JAX, which compiles them into one anyway.)"""
    if keras.backend.backend() != "tensorflow" or num_replicas() > 1:
        yield
        return
    _waiting.statistics = {}
    try:
        yield
        _update_waiting()
    finally:
        _waiting.statistics = None


def update(statistics: Statistics) -> None:
    """Moves a layer's running averages towards what it found."""
    waiting = _waiting.statistics
    if waiting is None:
        _update([statistics])
        return
    if id(statistics.layer) in waiting:  # it is used twice
        _update_waiting()
    waiting[id(statistics.layer)] = statistics


def _update_waiting() -> None:
    if _waiting.statistics:
        _update(list(_waiting.statistics.values()))
        _waiting.statistics.clear()


def values_per_channel(layers: list, sizes):
    """How many values the statistics of layers are of; sizes, and the result, are `(layers,)`."""
    parts = [layer.groups * layer.moving_mean.shape[0] for layer in layers]
    return ops.cast(sizes, "float32") / np.array(parts, "float32")


def degrees_of_freedom(n):
    """One less; a single value has variance 0, whatever the factor: keep that finite."""
    return ops.maximum(n - 1.0, 1.0)


def _update(statistics: list[Statistics]) -> None:
    # The debiased average follows from itself: m_t = m_{t−K} + α_t (x_t − m_{t−K}) with
    # α_t = (1 − momentum^K) / (1 − momentum^t) after K updates, whose weighted mean is x_t; so
    # the biased one need not be kept.
    # expm1 because 1 − momentum^t loses digits to cancellation in the first steps.
    layers = [found.layer for found in statistics]
    updates = np.array([layer.groups * num_replicas() for layer in layers])
    momentum = np.array([layer.momentum for layer in layers])
    epsilon = np.array([layer.epsilon for layer in layers], "float32")

    steps = ops.stack([layer.step.value for layer in layers]) + updates.astype("float32")
    rate = (momentum**updates - 1.0).astype("float32")
    rate = rate / ops.expm1(steps * np.log(momentum).astype("float32"))
    n = values_per_channel(layers, ops.stack([found.size for found in statistics]))
    unbiased = n / (degrees_of_freedom(n) - epsilon)

    channels = [layer.moving_mean.shape[0] for layer in layers]

    def for_channels(of_layers):
        if len(layers) == 1:
            return of_layers
        return ops.take(of_layers, np.repeat(np.arange(len(layers)), channels))

    rate, unbiased = for_channels(rate), for_channels(unbiased)
    kept = 1.0 - rate
    joined = ops.concatenate

    def moved(averages, found):
        values = joined(averages) * kept + found * rate
        ends = np.cumsum(channels)[:-1].tolist()
        return ops.split(values, ends) if ends else [values]

    means = moved(
        [layer.moving_mean.value for layer in layers], joined([found.mean for found in statistics])
    )
    variances = moved(
        [layer.moving_variance.value for layer in layers],
        joined([found.variance for found in statistics]) * unbiased,
    )
    for layer, step, mean, variance in zip(
        layers, ops.unstack(steps), means, variances, strict=True
    ):
        layer.step.assign(step)
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(variance)
