"""ResNets for photographs as torchvision has them: He et al., https://arxiv.org/abs/1512.03385.

ResNet-50 is version 1.5: the stride of a block is on its 3×3 convolution, not on the first 1×1.
Convolutions have no biases, batch normalisation has ε = 1e-5, and kernels begin as in PyTorch.
With 1000 classes, and multiplications at 224 px:

| network | blocks | parameters | of which trainable | multiplications |
|---|---|---|---|---|
| resnet-18 | 2, 2, 2, 2 of two 3×3 | 11,699,112 | 11,689,512 | 1.81 billion |
| resnet-34 | 3, 4, 6, 3 of two 3×3 | 21,814,696 | 21,797,672 | 3.66 billion |
| resnet-50-v1.5 | 3, 4, 6, 3 of 1×1, 3×3, 1×1 | 25,610,152 | 25,557,032 | 4.09 billion |

Without a --weight_decay it is torchvision's 1e-4, which is 5e-5 here. PyTorch's momentum of 0.1 in
the running averages is 0.9 here; they are zero-debiased, as everywhere in this project.
"""

from keras import layers

from models.convolutions import pytorch_conv2d
from models.initializers import linear_uniform
from models.layers import BatchNormalization

WEIGHT_DECAY = 5e-5
OUTPUT_WEIGHT_DECAY = 5e-5
OUTPUT_INITIALIZER = linear_uniform

_CHANNELS = (64, 128, 256, 512)


def backbone(
    images,
    *,
    weight_decay: float,
    harmonic: str = "none",
    blocks: tuple[int, ...],
    bottleneck: bool,
):
    """The network up to its pooled features.

    Args:
        images: Standardised images, `(batch, height, width, 3)`.
        blocks: Blocks in each of the 4 stages.
        bottleneck: Whether a block is 1×1, 3×3, 1×1 with four times the channels at its end, or
            two 3×3.

    Returns:
        Features `(batch, 512)`, or `(batch, 2048)` with bottlenecks.
    """

    def convolution(x, filters, size, suffix, strides=1):
        x = pytorch_conv2d(
            x,
            filters,
            size,
            strides=strides,
            pad=f"pad{suffix}",
            weight_decay=weight_decay,
            harmonic=harmonic,
            first=suffix == "1",
            name=f"conv{suffix}",
        )
        return BatchNormalization(0.9, 1e-5, name=f"bn{suffix}")(x)

    x = convolution(images, _CHANNELS[0], 7, "1", strides=2)
    x = layers.ReLU(name="relu1")(x)
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1")(x)
    for stage, (filters, count) in enumerate(zip(_CHANNELS, blocks, strict=True), start=2):
        width = 4 * filters if bottleneck else filters
        for block in range(1, count + 1):
            name = f"{stage}-{block}"
            strides = 2 if stage > 2 and block == 1 else 1
            shortcut = x
            if x.shape[-1] != width:
                shortcut = convolution(x, width, 1, f"{name}_shortcut", strides)
            if bottleneck:
                x = convolution(x, filters, 1, f"{name}a")
                x = layers.ReLU(name=f"relu{name}a")(x)
            x = convolution(x, filters, 3, f"{name}b", strides)
            x = layers.ReLU(name=f"relu{name}b")(x)
            x = convolution(x, width, 1 if bottleneck else 3, f"{name}c")
            x = layers.Add(name=f"add{name}")([x, shortcut])
            x = layers.ReLU(name=f"relu{name}")(x)
    return layers.GlobalAveragePooling2D(name="avg_pool")(x)
