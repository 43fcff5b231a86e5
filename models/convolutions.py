"""The convolutions of the backbones, plain or harmonic.

Every backbone takes `weight_decay`, the L2 of its kernels, and `harmonic`, the convolutions that
are harmonic, and hands both on to here.
"""

from typing import Any

from keras import layers

from models.harmonic import SUFFIX, HarmonicConv2D, HarmonicFilters
from models.initializers import fan_out_normal
from models.layers import BatchNormalization, kernel_l2


def conv2d(
    x,
    filters: int,
    size: int,
    *,
    name: str,
    weight_decay: float,
    harmonic: str,
    first: bool = False,
    **options: Any,
):
    """A convolution of a backbone, or the harmonic one in its place.

    The first convolution becomes all filters of each channel, batch normalisation without scale
    and shift, and a 1×1 convolution to the same width. Coefficients begin normal, of variance
    2 / (k² · outputs), or 2 / outputs in the first one.

    Args:
        x: Maps.
        filters: Output channels.
        size: Side k of the kernel; 1×1 convolutions stay what they are.
        name: The plain convolution's name. Harmonic ones are called otherwise, so that
            weights of the one kind are not taken for the other's.
        weight_decay: L2 of the kernel.
        harmonic: `"none"`, `"first"` (the first convolution only) or `"all"`.
        first: Whether it is the network's first convolution.
        **options: For `keras.layers.Conv2D`.
    """
    options["kernel_regularizer"] = kernel_l2(weight_decay)
    if size == 1 or harmonic == "none" or (harmonic == "first" and not first):
        return layers.Conv2D(filters, size, name=name, **options)(x)
    options["kernel_initializer"] = fan_out_normal()
    if not first:
        return HarmonicConv2D(filters, size, name=f"{name}{SUFFIX}", **options)(x)
    place = {key: options.pop(key) for key in ("strides", "padding") if key in options}
    x = HarmonicFilters(size, name=f"{name}_filters", **place)(x)
    x = BatchNormalization(0.9, 1e-5, affine=False, name=f"{name}_bn")(x)
    return layers.Conv2D(filters, 1, name=f"{name}{SUFFIX}", **options)(x)


def pytorch_conv2d(x, filters: int, size: int, *, pad: str = "", strides: int = 1, **options: Any):
    """A convolution that pads and begins as in PyTorch, without biases.

    Args:
        x: Maps.
        filters: Output channels.
        size: Side of the kernel.
        pad: Name of the layer that pads where there are strides.
        strides: Along both axes.
        **options: For `conv2d`.
    """
    if size > 1 and strides > 1:
        # PyTorch pads both sides, where Keras' `same` pads an even side on the right only.
        x = layers.ZeroPadding2D(size // 2, name=pad)(x)
    return conv2d(
        x,
        filters,
        size,
        strides=strides,
        padding="same" if strides == 1 else "valid",
        use_bias=False,
        kernel_initializer=fan_out_normal(),
        **options,
    )
