"""Harmonic convolutions: kernels that are learned sums of the filters of a cosine transform.

Source: Ulicny, Krylov & Dahyot, *Harmonic Convolutional Networks based on Discrete Cosine
Transform*, https://arxiv.org/abs/2001.06570, as Brigato et al. use it on few images,
https://arxiv.org/abs/2108.13122: all k² filters, each divided by the sum of its absolute values.
`folding.fold` makes plain convolutions of them.
"""

import keras
import numpy as np
from keras import ops

# Side of the kernels, and maps of the first convolution, so that a file cannot ask for filters that
# fill the memory. A network here has 7, and 147 maps.
_LARGEST = 11
_MOST_MAPS = 4096
# What the names of layers end in whose weights are coefficients, and those of a plain network not.
SUFFIX = "_harmonic"


def cosine_filters(size: int) -> np.ndarray:
    """The k² filters, `(k, k, k²)`, float64: number k · i + j at (y, x) is

    cos(π (y + ½) i / k) · cos(π (x + ½) j / k), divided by the sum of its absolute values.
    """
    frequency, place = np.arange(size)[:, np.newaxis], np.arange(size) + 0.5
    waves = np.cos(np.pi * frequency * place / size)
    waves /= np.abs(waves).sum(axis=1, keepdims=True)  # the product's sum is that of both
    return np.einsum("iy,jx->yxij", waves, waves).reshape(size, size, size**2)


def _check_size(kernel_size) -> None:
    if tuple(kernel_size) not in [(side, side) for side in range(2, _LARGEST + 1)]:
        raise ValueError(
            f"a harmonic kernel has two equal sides from 2 to {_LARGEST}, not {tuple(kernel_size)}"
        )


@keras.saving.register_keras_serializable(package="small_data")
class HarmonicConv2D(keras.layers.Conv2D):
    """A convolution whose weights `kernel` are the filters' coefficients.

    Takes the arguments of `keras.layers.Conv2D`. The weights `(k, k, inputs, outputs)` have the
    frequencies i and j in place of the rows and columns of a kernel; regularisers see them.
    """

    def __init__(self, filters: int, kernel_size: int | tuple[int, int], **kwargs):
        super().__init__(filters, kernel_size, **kwargs)
        _check_size(self.kernel_size)

    def convolution_op(self, inputs, kernel):
        """As in Keras, of the sum of filters that `kernel` has the coefficients of."""
        size = self.kernel_size[0]
        kernel = ops.convert_to_tensor(kernel)
        shape = kernel.shape
        coefficients = ops.reshape(kernel, (size**2, -1))
        bank = ops.convert_to_tensor(cosine_filters(size).reshape(size**2, -1), dtype=kernel.dtype)
        return super().convolution_op(inputs, ops.reshape(ops.matmul(bank, coefficients), shape))


@keras.saving.register_keras_serializable(package="small_data")
class HarmonicFilters(keras.layers.Layer):
    """Every filter on every channel: `(batch, height, width, C)` to C · k² maps; no weights.

    Map c · k² + f is that of channel c and filter f.

    Args:
        kernel_size: k, or k twice.
        strides: As for a convolution, the same along both axes.
        padding: `"valid"` or `"same"`.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        strides: int = 1,
        padding: str = "valid",
        **kwargs,
    ):
        super().__init__(**kwargs)
        sides = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        self.kernel_size = tuple(sides)
        _check_size(self.kernel_size)
        if strides < 1 or padding not in ("valid", "same"):
            raise ValueError(f"no convolution with strides {strides} and padding {padding!r}")
        self.strides = strides
        self.padding = padding

    def build(self, input_shape):
        maps = input_shape[-1] * self.kernel_size[0] ** 2
        if maps > _MOST_MAPS:
            raise ValueError(f"harmonic filters would give {maps} maps, more than {_MOST_MAPS}")

    def call(self, images):
        bank = cosine_filters(self.kernel_size[0])[:, :, np.newaxis]
        bank = np.repeat(bank, images.shape[-1], axis=2)
        kernel = ops.convert_to_tensor(bank, dtype=self.compute_dtype)
        return ops.depthwise_conv(images, kernel, strides=self.strides, padding=self.padding)

    def compute_output_shape(self, input_shape):
        lost = self.kernel_size[0] - 1 if self.padding == "valid" else 0
        batch, *sides, channels = input_shape
        sides = [None if side is None else -(-(side - lost) // self.strides) for side in sides]
        return (batch, *sides, channels * self.kernel_size[0] ** 2)

    def get_config(self):
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
        }
