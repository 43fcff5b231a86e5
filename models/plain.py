"""Plain-11, the network `simple`: Barz & Denzler, https://arxiv.org/abs/1809.09924.

9 convolutions and 2 dense layers, with batch normalisation after the activation. With 100 classes
3,386,404 parameters, 3,381,796 of them trainable. The layers have the names of the original, which
counts the poolings: conv1, conv2, avg3, conv4, …, conv12, avg_pool, fc14, and bn1 to bn14 likewise.
"""

from collections.abc import Mapping
from typing import Any

from keras import initializers, layers

from models.convolutions import conv2d
from models.layers import BatchNormalization, kernel_l2

WEIGHT_DECAY = 5e-4
OUTPUT_WEIGHT_DECAY = 0.0
OUTPUT_INITIALIZER = initializers.GlorotUniform

# Channels of the convolutions between the average poolings.
_STAGES = ((64, 64), (128, 128, 128), (256, 256, 256), (512,))


def backbone(images, *, weight_decay: float, harmonic: str = "none"):
    """The network up to its last hidden layer.

    Args:
        images: Standardised images, `(batch, height, width, 3)`, sides of at least 8 pixels.

    Returns:
        Features `(batch, 512)`.
    """
    options = {"activation": "relu", "kernel_initializer": "glorot_uniform"}
    x = images
    index = 0
    for stage, channels in enumerate(_STAGES):
        if stage:
            index += 1
            x = layers.AveragePooling2D(2, name=f"avg{index}")(x)
        for filters in channels:
            index += 1
            x = conv2d(
                x,
                filters,
                3,
                padding="same",
                weight_decay=weight_decay,
                harmonic=harmonic,
                first=index == 1,
                name=f"conv{index}",
                **options,
            )
            x = BatchNormalization(name=f"bn{index}")(x)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    index += 2  # of this pooling, too
    regularizer = kernel_l2(weight_decay)
    x = layers.Dense(512, kernel_regularizer=regularizer, name=f"fc{index}", **options)(x)
    return BatchNormalization(name=f"bn{index}")(x)


def current_names(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Weights by layer, renamed where the poolings are not counted, as in older files of ours."""
    if "conv3" not in weights:
        return dict(weights)
    numbers = dict(enumerate((1, 2, 4, 5, 6, 8, 9, 10, 12, 14), start=1))
    names = {
        f"{kind}{old}": f"{kind}{new}"
        for kind in ("conv", "bn", "fc")
        for old, new in numbers.items()
    }
    return {names.get(name, name): arrays for name, arrays in weights.items()}
