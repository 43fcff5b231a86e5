"""Plain-11, the network `simple`: Barz & Denzler, https://arxiv.org/abs/1809.09924.

9 convolutions and 2 dense layers, with batch normalisation after the activation. With 100 classes
3,386,404 parameters, 3,381,796 of them trainable.
"""

from keras import layers

from models.layers import BatchNormalization, kernel_l2

WEIGHT_DECAY = 5e-4
OUTPUT_WEIGHT_DECAY = 0.0

# Channels of the convolutions between the average poolings.
_STAGES = ((64, 64), (128, 128, 128), (256, 256, 256), (512,))


def backbone(images, *, weight_decay: float):
    """The network up to its last hidden layer.

    Args:
        images: Standardised images, `(batch, height, width, 3)`, sides of at least 8 pixels.
        weight_decay: L2 of the kernels.

    Returns:
        Features `(batch, 512)`.
    """
    options = {
        "activation": "relu",
        "kernel_initializer": "glorot_uniform",
        "kernel_regularizer": kernel_l2(weight_decay),
    }
    x = images
    index = 0
    for stage, channels in enumerate(_STAGES, start=1):
        if stage > 1:
            x = layers.AveragePooling2D(2, name=f"avg{stage - 1}")(x)
        for filters in channels:
            index += 1
            x = layers.Conv2D(filters, 3, padding="same", name=f"conv{index}", **options)(x)
            x = BatchNormalization(name=f"bn{index}")(x)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    index += 1
    x = layers.Dense(512, name=f"fc{index}", **options)(x)
    return BatchNormalization(name=f"bn{index}")(x)
