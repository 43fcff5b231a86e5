"""TrivialAugment: one random operation of a table, with a random strength, for every image.

Müller & Hutter, *TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation*, ICCV 2021
(arXiv 2103.10158); the table is their "wide" one. What geometry moves into the image is black,
and pixels are taken from the nearest place, as there.
"""

from collections.abc import Callable

from PIL import Image, ImageEnhance, ImageOps

STRENGTHS = 31
MAX_SHEAR = 0.99
MAX_SHIFT = 32  # pixels
MAX_DEGREES = 135.0
MAX_CHANGE = 0.99
MIN_BITS = 2


def _affine(image: Image.Image, *coefficients: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, coefficients)


def _shift(image: Image.Image, strength: float) -> float:
    # An image smaller than 64 pixels would be moved out of sight.
    return strength * min(MAX_SHIFT, min(image.size) / 2)


def _enhanced(kind: type) -> Callable:
    return lambda image, strength: kind(image).enhance(1 + MAX_CHANGE * strength)


def _posterize(image: Image.Image, strength: float) -> Image.Image:
    bits = 8 - round(strength * (8 - MIN_BITS))
    return image if bits == 8 else ImageOps.posterize(image, bits)


# By the name in the paper: the operation, which takes an image and a strength, and whether the
# strength is in -1 to 1 or in 0 to 1.
OPERATIONS: dict[str, tuple[Callable[[Image.Image, float], Image.Image], bool]] = {
    "identity": (lambda image, s: image, False),
    "shear_x": (lambda image, s: _affine(image, 1, MAX_SHEAR * s, 0, 0, 1, 0), True),
    "shear_y": (lambda image, s: _affine(image, 1, 0, 0, MAX_SHEAR * s, 1, 0), True),
    "translate_x": (lambda image, s: _affine(image, 1, 0, _shift(image, s), 0, 1, 0), True),
    "translate_y": (lambda image, s: _affine(image, 1, 0, 0, 0, 1, _shift(image, s)), True),
    "rotate": (lambda image, s: image.rotate(MAX_DEGREES * s), True),
    "brightness": (_enhanced(ImageEnhance.Brightness), True),
    "color": (_enhanced(ImageEnhance.Color), True),
    "contrast": (_enhanced(ImageEnhance.Contrast), True),
    "sharpness": (_enhanced(ImageEnhance.Sharpness), True),
    "posterize": (_posterize, False),
    "solarize": (lambda image, s: ImageOps.solarize(image, round(255 * (1 - s))), False),
    "autocontrast": (lambda image, s: ImageOps.autocontrast(image), False),
    "equalize": (lambda image, s: ImageOps.equalize(image), False),
}
_TABLE = tuple(OPERATIONS.values())


def trivial_augment(
    image: Image.Image, operation: float, strength: float, sign: float
) -> Image.Image:
    """An RGB image after one operation, of the same size; may be the same object.

    Args:
        image: The image.
        operation: Which one: a random number, uniform in [0, 1).
        strength: One of `STRENGTHS`, likewise.
        sign: Of the strengths that have one, likewise.
    """
    apply, signed = _TABLE[int(operation * len(_TABLE))]
    value = int(strength * STRENGTHS) / (STRENGTHS - 1)
    return apply(image, -value if signed and sign < 0.5 else value)
