"""ResNet-50: He et al., https://arxiv.org/abs/1512.03385, table 1.

The first version, with the stride on the first 1×1 convolution of a stage, as keras-applications
1.0.6 had it in 2018. `keras.applications.ResNet50` of today has another initialiser, another
epsilon and other layer names. With 200 classes 23,997,512 parameters, 23,944,392 of them trainable.
"""

from keras import initializers, layers

from models.convolutions import conv2d
from models.layers import BatchNormalization

WEIGHT_DECAY = 0.0
OUTPUT_WEIGHT_DECAY = 0.0
OUTPUT_INITIALIZER = initializers.GlorotUniform

# Channels of the bottleneck and number of blocks of the stages, which are counted from 2.
_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))


def backbone(images, *, weight_decay: float, harmonic: str = "none"):
    """The network up to its pooled features.

    Args:
        images: Standardised images, `(batch, height, width, 3)`.

    Returns:
        Features `(batch, 2048)`.
    """

    def convolution(x, filters, size, suffix, strides=1, padding="same"):
        x = conv2d(
            x,
            filters,
            size,
            strides=strides,
            padding=padding,
            kernel_initializer="he_normal",
            weight_decay=weight_decay,
            harmonic=harmonic,
            first=suffix == "_conv1",
            name=f"res{suffix}" if suffix != "_conv1" else "conv1",
        )
        return BatchNormalization(name=f"bn{suffix}")(x)

    def bottleneck(x, filters, name, strides, project):
        shortcut = x
        if project:
            shortcut = convolution(x, 4 * filters, 1, f"{name}_branch1", strides)
        x = convolution(x, filters, 1, f"{name}_branch2a", strides)
        x = layers.ReLU(name=f"relu{name}_branch2a")(x)
        x = convolution(x, filters, 3, f"{name}_branch2b")
        x = layers.ReLU(name=f"relu{name}_branch2b")(x)
        x = convolution(x, 4 * filters, 1, f"{name}_branch2c")
        x = layers.Add(name=f"add{name}")([x, shortcut])
        return layers.ReLU(name=f"relu{name}")(x)

    x = layers.ZeroPadding2D(3, name="conv1_pad")(images)
    x = convolution(x, 64, 7, "_conv1", strides=2, padding="valid")
    x = layers.ReLU(name="relu_conv1")(x)
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1")(x)
    for stage, (filters, blocks) in enumerate(_STAGES, start=2):
        for block, letter in enumerate("abcdef"[:blocks]):
            first = block == 0
            strides = 2 if first and stage > 2 else 1
            x = bottleneck(x, filters, f"{stage}{letter}", strides, project=first)
    return layers.GlobalAveragePooling2D(name="avg_pool")(x)
