"""ResNet for CIFAR: He et al., section 4.2 of https://arxiv.org/abs/1512.03385.

3 stages of `blocks` basic blocks, hence 6 · blocks + 2 layers. With 100 classes:

| network | blocks | channels | parameters | of which trainable |
|---|---|---|---|---|
| resnet-32 | 5 | 16, 32, 64 | 473,412 | 471,140 |
| resnet-110 | 18 | 16, 32, 64 | 1,745,956 | 1,737,860 |
| resnet-110-wfc | 18 | 32, 64, 128 | 6,929,380 | 6,913,188 |

The shortcut of a block that halves the image is 2×2 average pooling and zero channels (a variant
of the paper's option A, which subsamples).
"""

from keras import initializers, layers

from models.convolutions import conv2d
from models.layers import BatchNormalization, PadChannels

WEIGHT_DECAY = 2e-4
OUTPUT_WEIGHT_DECAY = 2e-4
OUTPUT_INITIALIZER = initializers.GlorotUniform


def backbone(
    images,
    *,
    weight_decay: float,
    harmonic: str = "none",
    blocks: int,
    channels: tuple[int, int, int],
):
    """The network up to its pooled features.

    Args:
        images: Standardised images, `(batch, height, width, 3)`, sides divisible by 4.
        blocks: Basic blocks in each stage.
        channels: Channels of each stage.

    Returns:
        Features `(batch, channels[-1])`.
    """

    def convolution(x, filters, suffix, strides=1):
        x = conv2d(
            x,
            filters,
            3,
            strides=strides,
            padding="same",
            kernel_initializer="glorot_uniform",
            weight_decay=weight_decay,
            harmonic=harmonic,
            first=suffix == "0",
            name=f"res{suffix}" if suffix != "0" else "conv0",
        )
        return BatchNormalization(name=f"bn{suffix}")(x)

    x = convolution(images, channels[0], "0")
    x = layers.ReLU(name="relu0")(x)
    for stage, filters in enumerate(channels, start=1):
        for block in range(1, blocks + 1):
            name = f"{stage}-{block}"
            shortcut, strides = x, 1
            if stage > 1 and block == 1:
                strides = 2
                shortcut = layers.AveragePooling2D(2, name=f"avg{name}")(shortcut)
                shortcut = PadChannels(filters - x.shape[-1], name=f"pad{name}")(shortcut)
            x = convolution(x, filters, f"{name}x", strides)
            x = layers.ReLU(name=f"relu{name}x")(x)
            x = convolution(x, filters, f"{name}y")
            x = layers.Add(name=f"add{name}")([x, shortcut])
            x = layers.ReLU(name=f"relu{name}y")(x)
    return layers.GlobalAveragePooling2D(name="avg_pool")(x)
