"""One image in, one image out: flipping, erasing, cropping, shifting.

Everything is uint8 RGB; the model normalises. The random transforms first draw what is to be done
(`View`) and then render it, so that only those pixels are resized that end up in the crop.
Orders and ranges are those of the paper's implementation (see `draw_view`).
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from resizing import reflect_pad, resize_region, resized_size

ERASE_PROBABILITY = 0.5
ERASE_AREA = (0.02, 0.3)
ERASE_ASPECT = (0.3, 1 / 0.3)


@dataclass(frozen=True)
class View:
    """What is done to one training image.

    Attributes:
        size: Width and height of the resized image.
        flip: Whether it is mirrored horizontally.
        erase: Left, top, width and height of the erased rectangle in the mirrored image, or `None`.
        crop: Left and top edge of the crop in the mirrored (and, where smaller, padded) image.
    """

    size: tuple[int, int]
    flip: bool
    erase: tuple[int, int, int, int] | None
    crop: tuple[int, int]


def draw_view(
    rng: np.random.Generator,
    width: int,
    height: int,
    resize: tuple[int, int],
    crop_size: int,
) -> View:
    """Draws the training augmentation of file data sets, in the order of the original.

    The smaller side is resized to a length uniform in `resize` (both included), then follow a
    horizontal flip (p = 0.5), random erasing (p = 0.5; area uniform in 2 to 30 % of the resized
    image, aspect ratio uniform in 0.3 to 1/0.3, sides truncated to whole pixels, redrawn until it
    fits) and a random crop.
    """
    smallest, largest = resize
    side = smallest if smallest == largest else int(rng.integers(smallest, largest + 1))
    size = resized_size(width, height, side)
    flip = bool(rng.random() < 0.5)
    erase = draw_rectangle(rng, *size) if rng.random() < ERASE_PROBABILITY else None
    left, top = (int(rng.integers(max(0, length - crop_size) + 1)) for length in size)
    return View(size, flip, erase, (left, top))


def draw_rectangle(rng: np.random.Generator, width: int, height: int) -> tuple[int, int, int, int]:
    """Draws what random erasing replaces: left, top, width and height (see `draw_view`)."""
    while True:
        area = rng.uniform(*ERASE_AREA) * width * height
        aspect = rng.uniform(*ERASE_ASPECT)
        erased_width = int(math.sqrt(area / aspect))
        erased_height = int(math.sqrt(area * aspect))
        if 0 < erased_width <= width and 0 < erased_height <= height:
            left = int(rng.integers(width - erased_width + 1))
            top = int(rng.integers(height - erased_height + 1))
            return left, top, erased_width, erased_height


def render_view(
    image: Image.Image | np.ndarray, view: View, crop_size: int, rng: np.random.Generator
) -> np.ndarray:
    """Renders a drawn view of an image.

    Args:
        image: The decoded RGB image, or an array of it resized to `view.size`.
        view: What `draw_view` drew for it.
        crop_size: Side of the crop.
        rng: Fills the erased rectangle with noise, uniform in 0 to 255 per pixel and channel.

    Returns:
        uint8 array `(crop_size, crop_size, 3)`.
    """
    width, height = view.size
    left, top = view.crop
    if min(width, height) < crop_size:
        # Padding reflects the erased rectangle too, so here the whole image is made.
        pixels = _flip_and_erase(
            resize_region(image, view.size, 0, 0, width, height), view, (0, 0), rng
        )
        pixels = reflect_pad(pixels, crop_size)
        return pixels[top : top + crop_size, left : left + crop_size]
    source_left = width - left - crop_size if view.flip else left
    pixels = resize_region(image, view.size, source_left, top, crop_size, crop_size)
    return _flip_and_erase(pixels, view, view.crop, rng)


def _flip_and_erase(
    pixels: np.ndarray, view: View, origin: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Mirrors a region that begins at `origin` of the mirrored image, and erases its part there."""
    # Moving pixels takes half the time of moving their channels.
    whole = pixels.view("V3")
    pixels = np.array(whole[:, ::-1] if view.flip else whole).view(np.uint8)
    if view.erase is None:
        return pixels
    left, top, width, height = view.erase
    left, top = left - origin[0], top - origin[1]
    fill_noise(pixels[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)], rng)
    return pixels


def fill_noise(pixels: np.ndarray, rng: np.random.Generator) -> None:
    """Replaces uint8 pixels by noise, uniform in 0 to 255 per pixel and channel."""
    pixels[...] = np.frombuffer(rng.bytes(pixels.size), np.uint8).reshape(pixels.shape)


def warp_batch(
    images: np.ndarray, flip: np.ndarray, shift: np.ndarray, zoom: np.ndarray
) -> np.ndarray:
    """Zooms, shifts and mirrors a batch of small square images (bilinear, edge pixels repeated).

    Zoom, shift and flip act on rows and columns apart, so each is one matrix of interpolation
    weights per image, and the whole is two small matrix products.

    Args:
        images: uint8 `(batch, side, side, 3)`.
        flip: bool `(batch,)`, horizontally.
        shift: `(batch, 2)`, vertical and horizontal, in pixels; the image moves up and left.
        zoom: `(batch, 2)`, vertical and horizontal; above 1 the image shrinks.

    Returns:
        uint8 `(batch, side, side, 3)`, within half a grey level of the exact values.
    """
    side = images.shape[1]
    center = (side - 1) / 2
    offsets = np.arange(side) - center
    # (batch, 2, side): where in the source each row and column comes from.
    positions = zoom[:, :, None] * offsets + center + shift[:, :, None]
    positions[flip, 1] = positions[flip, 1, ::-1]
    positions = np.clip(positions, 0, side - 1).astype(np.float32)[:, :, :, None]
    weights = np.maximum(0, 1 - np.abs(positions - np.arange(side, dtype=np.float32)))
    rows, columns = weights[:, None, 0], weights[:, None, 1].swapaxes(-1, -2)
    channels_first = images.transpose(0, 3, 1, 2).astype(np.float32)
    warped = np.rint(rows @ channels_first @ columns).astype(np.uint8)
    return warped.transpose(0, 2, 3, 1)
