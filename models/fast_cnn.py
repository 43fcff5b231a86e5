"""A network that learns fast on a CPU, for images of 32 to 64 pixels: this project's own.

Seven 3×3 convolutions, each followed by batch normalisation and GELU, without biases: 64 channels,
then stages of 64, 128 and 256 channels. A stage is a convolution with 2×2 maximum pooling behind
it, and another one with a shortcut around it (around its normalisation and GELU, too). Then comes
the global maximum. The layout is close to that of Jordan's airbench94
(https://arxiv.org/abs/2404.00498), which has fixed whitening 2×2 filters for the first convolution,
64, 256 and 256 channels and no shortcuts.

With 10 classes 1,187,786 parameters, of which 1,185,866 trainable; 106 million multiplications at
32 px, 422 million at 64 px. Kernels begin as in PyTorch, ε is 1e-5, and the running averages have
momentum 0.9 and are zero-debiased, as everywhere in this project.
"""

from keras import layers

from models.convolutions import pytorch_conv2d
from models.initializers import linear_uniform
from models.layers import BatchNormalization

WEIGHT_DECAY = 2.5e-3
OUTPUT_WEIGHT_DECAY = 2.5e-3
OUTPUT_INITIALIZER = linear_uniform

_STAGES = (64, 128, 256)


def backbone(images, *, weight_decay: float, harmonic: str = "none"):
    """The network up to its pooled features.

    Args:
        images: Standardised images, `(batch, height, width, 3)`, sides of at least 8 pixels.

    Returns:
        Features `(batch, 256)`.
    """

    def convolution(x, filters, suffix, pool=False):
        x = pytorch_conv2d(
            x,
            filters,
            3,
            weight_decay=weight_decay,
            harmonic=harmonic,
            first=suffix == "0",
            name=f"conv{suffix}",
        )
        if pool:
            x = layers.MaxPooling2D(2, name=f"pool{suffix}")(x)
        x = BatchNormalization(0.9, 1e-5, name=f"bn{suffix}")(x)
        return layers.Activation("gelu", name=f"gelu{suffix}")(x)

    x = convolution(images, _STAGES[0], "0")
    for stage, filters in enumerate(_STAGES, start=1):
        x = convolution(x, filters, f"{stage}x", pool=True)
        x = layers.Add(name=f"add{stage}")([x, convolution(x, filters, f"{stage}y")])
    return layers.GlobalMaxPooling2D(name="max_pool")(x)
