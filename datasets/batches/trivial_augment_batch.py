"""TrivialAugment of a batch of small images, as `trivial_augment` does it one by one.

Pillow takes longer to begin an operation than to do it on so few pixels. Where it moves pixels to
is therefore asked of it once and kept; what it does to values is computed here, for all images of
an operation together. The results are Pillow's bit by bit; where compilers fuse multiplications
with additions, as on ARM, values may be one grey level off.
"""

import functools
from collections.abc import Callable

import numpy as np
from PIL import Image

from datasets.batches.trivial_augment import MAX_CHANGE, MIN_BITS, OPERATIONS, STRENGTHS

_NAMES = tuple(OPERATIONS)
# Side of images up to which 310 maps of places are kept, of 30 MB together.
_KEPT_SIDE = 64
# Of Pillow's grey: red, green and blue. All sums of it are exact in float32.
_GREY = np.array([19595, 38470, 7471], np.float32) / 2**16


def trivial_augment_batch(
    images: np.ndarray, operation: np.ndarray, strength: np.ndarray, sign: np.ndarray
) -> None:
    """Changes images in place, each by one operation.

    Args:
        images: uint8 `(batch, side, side, 3)`, contiguous.
        operation: Which one: random numbers, uniform in [0, 1), `(batch,)`.
        strength: One of `STRENGTHS`, likewise.
        sign: Of the strengths that have one, likewise.
    """
    numbers = (operation * len(_NAMES)).astype(int)
    values = (strength * STRENGTHS).astype(int) / (STRENGTHS - 1)
    signed = np.where(sign < 0.5, -values, values)
    for number in set(numbers.tolist()):
        name, rows = _NAMES[number], np.flatnonzero(numbers == number)
        given = (signed if OPERATIONS[name][1] else values)[rows]
        if name in _CHANGES:
            images[rows] = _CHANGES[name](images[rows], given[:, None, None, None])
        elif name != "identity":
            _move(images, rows, name, given)


def _move(images: np.ndarray, rows: np.ndarray, name: str, values: np.ndarray) -> None:
    if images.shape[1] > _KEPT_SIDE:
        for row, value in zip(rows, values.tolist(), strict=True):
            images[row] = OPERATIONS[name][0](Image.fromarray(images[row]), value)
        return
    numbers = images.reshape(len(images), -1)
    source = np.zeros(3 + numbers.shape[1], np.uint8)
    for row, value in zip(rows.tolist(), values.tolist(), strict=True):
        source[3:] = numbers[row]
        source.take(_sources(name, value, images.shape[1]), out=numbers[row], mode="clip")


@functools.lru_cache(maxsize=5 * 2 * STRENGTHS)
def _sources(name: str, value: float, side: int) -> np.ndarray:
    """Which of an image's numbers comes to each place, with 3 zeros for black before them; flat."""
    places = np.arange(1, side**2 + 1, dtype=np.int32).reshape(side, side)
    moved = np.asarray(OPERATIONS[name][0](Image.fromarray(places), value))
    return (3 * moved[..., None] + np.arange(3)).ravel()


def _blended(start: np.ndarray, images: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Pillow's `ImageEnhance`: from float32 images, or values, to these images and beyond."""
    result = images - start
    result *= (1 + MAX_CHANGE * values).astype(np.float32)
    result += start
    return result.clip(0, 255, out=result).astype(np.uint8)


def _brightness(images: np.ndarray, values: np.ndarray) -> np.ndarray:
    return _blended(np.float32(0), images, values)


def _grey(images: np.ndarray) -> np.ndarray:
    """`(batch, height, width)`, float32."""
    grey = images.reshape(-1, 3).astype(np.float32) @ _GREY
    grey += 0.5
    return np.floor(grey, out=grey).reshape(images.shape[:3])


def _color(images: np.ndarray, values: np.ndarray) -> np.ndarray:
    grey, start = _grey(images), np.empty(images.shape, np.float32)
    for channel in range(3):  # faster than all three by broadcasting
        start[..., channel] = grey
    return _blended(start, images, values)


def _contrast(images: np.ndarray, values: np.ndarray) -> np.ndarray:
    means = _grey(images).mean(axis=(1, 2), dtype=np.float64) + 0.5
    return _blended(np.floor(means).astype(np.float32)[:, None, None, None], images, values)


def _sharpness(images: np.ndarray, values: np.ndarray) -> np.ndarray:
    """From Pillow's smoothed image: (the 9 pixels around + 4 of the middle) / 13, not at edges."""
    wide = images.astype(np.uint16)
    rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    around = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    around += 4 * wide[:, 1:-1, 1:-1]
    smooth = images.astype(np.float32)
    smooth[:, 1:-1, 1:-1] = (2 * around + 13) // 26
    return _blended(smooth, images, values)


def _posterize(images: np.ndarray, values: np.ndarray) -> np.ndarray:
    lost = np.rint(values * (8 - MIN_BITS)).astype(int)
    return images & (256 - 2**lost).astype(np.uint8)


def _solarize(images: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.where(images < np.rint(255 * (1 - values)).astype(np.uint8), images, 255 - images)


def _by_channel(images: np.ndarray, change: Callable) -> np.ndarray:
    """With the channels `(batch, 3, pixels)` changed by a function."""
    batch = len(images)
    channels = np.ascontiguousarray(images.reshape(batch, -1, 3).transpose(0, 2, 1))
    return change(channels).transpose(0, 2, 1).reshape(images.shape)


def _autocontrast(images: np.ndarray, values: np.ndarray) -> np.ndarray:
    def stretched(channels: np.ndarray) -> np.ndarray:
        low, high = (end(axis=2, keepdims=True).astype(int) for end in (channels.min, channels.max))
        even = low == high
        scale = 255 / np.where(even, 255, high - low)
        result = channels * scale
        result -= np.where(even, 0, low * scale)
        return result.clip(0, 255, out=result).astype(np.uint8)

    return _by_channel(images, stretched)


def _equalize(images: np.ndarray, values: np.ndarray) -> np.ndarray:
    def equalized(channels: np.ndarray) -> np.ndarray:
        batch, _, pixels = channels.shape
        # Each channel has 256 numbers of its own, for one count of all and one table.
        numbers = channels + 256 * np.arange(3 * batch).reshape(batch, 3, 1)
        flat = np.bincount(numbers.ravel(), minlength=3 * batch * 256).astype(np.int32)
        step = (pixels - flat[numbers.max(axis=2, keepdims=True)]) // 255
        counts = flat.reshape(batch, 3, 256)
        levels = np.cumsum(counts, axis=2, dtype=np.int32)
        levels += step // 2 - counts
        levels //= np.maximum(step, 1)
        table = np.where(step == 0, np.arange(256), np.minimum(levels, 255)).astype(np.uint8)
        return table.ravel().take(numbers)

    return _by_channel(images, equalized)


_CHANGES = {
    "brightness": _brightness,
    "color": _color,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
