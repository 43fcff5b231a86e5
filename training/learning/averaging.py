"""Averaged weights (`--ema`): from what the optimiser keeps to a network that has them.

Polyak & Juditsky, *Acceleration of Stochastic Approximation by Averaging*, SIAM J. Control Optim.
1992, here with exponential weights. The averages are variables of the optimiser, so a snapshot
has them, while the training goes on with the last weights.
"""

from collections.abc import Iterator

import keras
import numpy as np

import models

# So many training images give batch normalisation its averages.
IMAGES = 10_000
# Of a few hundred batches this is their plain mean; the layer's averages are free of the zero that
# they begin with.
_MOMENTUM = 0.9999


def momentum(half_life: float, images_per_step: float) -> float:
    """The factor per step with which an average forgets half in `half_life` images."""
    return 0.5 ** (images_per_step / half_life)


def use_averages(model: keras.Model, batches, epoch: int) -> None:
    """Puts the averages in place of a network's weights, and says so in its `info`.

    The averages that batch normalisation keeps of means and variances belong to the last weights.
    They are taken anew, of `IMAGES` training images or an epoch.

    Args:
        model: Compiled with an optimiser that has averages, and trained.
        batches: The training batches; their order and augmentation follow from the epoch.
        epoch: One that was not trained.
    """
    # Keras' loss scaling has another optimiser within.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    averages = optimizer._model_variables_moving_average
    for variable, average in zip(model.trainable_variables, averages, strict=True):
        variable.assign(average)
    layers = [layer for layer in model.layers if isinstance(layer, models.BatchNormalization)]
    layers = [layer for layer in layers if layer.trainable]
    if layers:
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.step.assign(0.0)
            layer.momentum = _MOMENTUM
        for images in _images(batches, epoch):
            model(images, training=True)
        for layer, value in zip(layers, momenta, strict=True):
            layer.momentum = value
    model.info["weights"] = "averaged"


def _images(batches, epoch: int) -> Iterator[np.ndarray]:
    batches.start_at(epoch, 0)
    seen = 0
    for i in range(len(batches)):
        images = batches[i][0]
        yield images
        seen += len(images)
        if seen >= IMAGES:
            return
