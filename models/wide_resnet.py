"""Wide ResNet: Zagoruyko & Komodakis, https://arxiv.org/abs/1605.07146.

3 stages of `blocks` pre-activation blocks of two 3×3 convolutions. Where the width changes, the
activated input feeds both the block and its 1×1 shortcut. Convolutions have no biases, there is no
dropout, batch normalisation has ε = 1e-5, and kernels begin as in PyTorch. With 10 classes:

| network | blocks | channels | parameters | of which trainable | multiplications at 32 px |
|---|---|---|---|---|---|
| wrn-16-8 | 2 | 128, 256, 512 | 10,968,570 | 10,961,370 | 1.55 billion |
| wrn-28-10 | 4 | 160, 320, 640 | 36,497,146 | 36,479,194 | 5.24 billion |

Without a --weight_decay it is the authors' 5e-4, which is 2.5e-4 here. PyTorch's momentum of 0.1 in
the running averages is 0.9 here; they are zero-debiased, as everywhere in this project.
"""

from keras import layers

from models.convolutions import pytorch_conv2d
from models.initializers import linear_uniform
from models.layers import BatchNormalization

WEIGHT_DECAY = 2.5e-4
OUTPUT_WEIGHT_DECAY = 2.5e-4
OUTPUT_INITIALIZER = linear_uniform


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
        images: Standardised images, `(batch, height, width, 3)`.
        blocks: Blocks in each stage.
        channels: Channels of each stage.

    Returns:
        Features `(batch, channels[-1])`.
    """

    def convolution(x, filters, size, name, strides=1):
        return pytorch_conv2d(
            x,
            filters,
            size,
            strides=strides,
            pad=f"pad_{name}",
            weight_decay=weight_decay,
            harmonic=harmonic,
            first=name == "conv0",
            name=name,
        )

    def activation(x, suffix):
        x = BatchNormalization(0.9, 1e-5, name=f"bn{suffix}")(x)
        return layers.ReLU(name=f"relu{suffix}")(x)

    x = convolution(images, 16, 3, "conv0")
    for stage, filters in enumerate(channels, start=1):
        for block in range(1, blocks + 1):
            name = f"{stage}-{block}"
            strides = 2 if stage > 1 and block == 1 else 1
            shortcut, activated = x, activation(x, f"{name}x")
            if x.shape[-1] != filters:
                shortcut = convolution(activated, filters, 1, f"shortcut{name}", strides)
            x = convolution(activated, filters, 3, f"res{name}x", strides)
            x = convolution(activation(x, f"{name}y"), filters, 3, f"res{name}y")
            x = layers.Add(name=f"add{name}")([x, shortcut])
    x = activation(x, "_last")
    return layers.GlobalAveragePooling2D(name="avg_pool")(x)
