"""Resizing and cropping with Pillow, in training and in testing: only what is used is resized."""

import math

import numpy as np
from PIL import Image


def resized_size(width: int, height: int, smaller_side: int) -> tuple[int, int]:
    """Width and height after the smaller side was resized to `smaller_side` pixels."""
    if width <= height:
        return smaller_side, round(height * smaller_side / width)
    return round(width * smaller_side / height), smaller_side


def shrunk_size(width: int, height: int, smaller_side: int) -> tuple[int, int]:
    """As `resized_size`, of larger images only; smaller ones stay as they are."""
    if min(width, height) <= smaller_side:
        return width, height
    return resized_size(width, height, smaller_side)


def resize_region(
    image: Image.Image | np.ndarray,
    size: tuple[int, int],
    left: int,
    top: int,
    width: int,
    height: int,
) -> np.ndarray:
    """The region of the image resized to `size`, without resizing the rest (Pillow bilinear).

    Args:
        image: RGB; an array `(height, width, 3)` has that size already and is only cut.
        size: Width and height of the whole resized image.
        left: Left edge of the region in the resized image; likewise `top`.
        width: Width of the region; likewise `height`.

    Returns:
        uint8 array `(height, width, 3)`: of resizing first and cropping then, but for roundings of
        one grey level, rarely two.
    """
    if isinstance(image, np.ndarray):
        return image[top : top + height, left : left + width]
    scale_x, scale_y = image.width / size[0], image.height / size[1]
    # Columns first, then rows: so the original's Pillow did it always, while version 13 does some
    # tall images, and with a box many more, the other way round, with other roundings.
    reach = max(1, scale_y) + 1
    first_row = max(0, math.floor(top * scale_y - reach))
    last_row = min(image.height, math.ceil((top + height) * scale_y + reach))
    # Rounding must not carry a box beyond the image's edge.
    right = min((left + width) * scale_x, image.width)
    bottom = min((top + height) * scale_y, image.height)
    rows = image.crop((0, first_row, image.width, last_row))
    columns_done = rows.resize(
        (width, rows.height), Image.Resampling.BILINEAR, (left * scale_x, 0, right, rows.height)
    )
    region = columns_done.resize(
        (width, height),
        Image.Resampling.BILINEAR,
        (0, top * scale_y - first_row, width, bottom - first_row),
    )
    return np.asarray(region)


def reflect_pad(pixels: np.ndarray, side: int) -> np.ndarray:
    """Pads by reflection, on both sides evenly, to at least `side` pixels each way."""
    missing = [max(0, side - length) for length in pixels.shape[:2]]
    margins = [(m // 2, m - m // 2) for m in missing]
    return np.pad(pixels, (*margins, (0, 0)), mode="reflect")


def center_view(
    image: Image.Image | np.ndarray, size: tuple[int, int], crop_size: int
) -> np.ndarray:
    """The test-time view: resized, centre crop.

    Args:
        image: The decoded RGB image, or an array of it resized to `size`.
        size: Width and height of the resized image.
        crop_size: Side of the crop.

    Returns:
        uint8 array `(crop_size, crop_size, 3)`.
    """
    width, height = size
    if min(size) < crop_size:
        pixels = reflect_pad(resize_region(image, size, 0, 0, width, height), crop_size)
        top, left = ((length - crop_size) // 2 for length in pixels.shape[:2])
        return pixels[top : top + crop_size, left : left + crop_size]
    left, top = (width - crop_size) // 2, (height - crop_size) // 2
    return resize_region(image, size, left, top, crop_size, crop_size)
