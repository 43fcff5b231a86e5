"""The random crops of today's recipes, and cutout: of photos one by one, of small images by batch.

All of it is uint8 RGB, as in `transforms`, which has the paper's way.
"""

import math

import numpy as np
from PIL import Image

from datasets.augmentation import CROP_RATIO

_ATTEMPTS = 10


def draw_resized_crop(
    rng: np.random.Generator, width: int, height: int, smallest: float
) -> tuple[int, int, int, int]:
    """Draws the box of a random resized crop: left, top, right and bottom.

    Its area is uniform in `smallest` to 1 of the image's and the logarithm of its ratio uniform
    in 3/4 to 4/3; if ten of those do not fit, it is the largest box in the middle that has such a
    ratio. (Szegedy et al., *Going Deeper with Convolutions*, CVPR 2015, with torchvision's range.)
    """
    for _ in range(_ATTEMPTS):
        area = rng.uniform(smallest, 1) * width * height
        ratio = math.exp(rng.uniform(*map(math.log, CROP_RATIO)))
        columns, rows = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < columns <= width and 0 < rows <= height:
            left, top = int(rng.integers(width - columns + 1)), int(rng.integers(height - rows + 1))
            return left, top, left + columns, top + rows
    columns = min(width, max(1, round(height * CROP_RATIO[1])))
    rows = min(height, max(1, round(width / CROP_RATIO[0])))
    left, top = (width - columns) // 2, (height - rows) // 2
    return left, top, left + columns, top + rows


def resized_crop(
    image: Image.Image | np.ndarray, box: tuple[int, int, int, int], side: int
) -> Image.Image:
    """The box of an image, resized to `side` x `side` pixels (Pillow bilinear).

    Args:
        image: RGB, also as an array `(height, width, 3)`.
        box: Left, top, right and bottom edge.
        side: Of the result.
    """
    if isinstance(image, np.ndarray):
        left, top, right, bottom = box
        region = Image.fromarray(image[top:bottom, left:right])
    else:
        region = image.crop(box)
    return region.resize((side, side), Image.Resampling.BILINEAR)


def shift_batch(images: np.ndarray, shift: np.ndarray, flip: np.ndarray) -> np.ndarray:
    """Shifts small square images by whole pixels, edges filled by reflection, then mirrors some.

    Args:
        images: uint8 `(batch, side, side, 3)`.
        shift: Whole numbers `(batch, 2)`, vertical and horizontal, of less than `side` pixels; the
            image moves up and left.
        flip: bool `(batch,)`, horizontally.

    Returns:
        uint8 `(batch, side, side, 3)`.
    """
    side, margin = images.shape[1], int(np.abs(shift).max(initial=0))
    # Moving pixels takes half the time of moving their channels.
    pixels = np.ascontiguousarray(images).view("V3")[..., 0]
    wide = np.pad(pixels, [(0, 0), (margin, margin), (margin, margin)], mode="reflect")
    result = np.empty_like(pixels)
    for i, ((top, left), mirrored) in enumerate(zip((shift + margin).tolist(), flip, strict=True)):
        view = wide[i, top : top + side, left : left + side]
        result[i] = view[:, ::-1] if mirrored else view
    return result[..., None].view(np.uint8)


def cut_out(images: np.ndarray, center: np.ndarray, side: int, color: np.ndarray) -> None:
    """Replaces a square by one colour, in place; at the edges only its part in the image.

    (DeVries & Taylor, *Improved Regularization of Convolutional Neural Networks with Cutout*,
    arXiv 1708.04552. There the colour is the mean, which normalisation makes 0.)

    Args:
        images: uint8 `(batch, height, width, 3)`.
        center: Row and column `(batch, 2)`.
        side: Of the square; 0 changes nothing.
        color: uint8 `(3,)`.
    """
    first = center - side // 2
    for image, (top, left) in zip(images, first.tolist(), strict=True):
        image[max(0, top) : top + side, max(0, left) : left + side] = color
