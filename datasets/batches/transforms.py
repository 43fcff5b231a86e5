"""One image in, one image out: decoding, resizing, cropping, flipping, shifting, erasing.

Everything is uint8 RGB; the model normalises. The random transforms first draw what is to be done
(`View`) and then render it, so that only those pixels are resized that end up in the crop.
Orders and ranges are those of the paper's implementation (see `draw_view`).
"""

import contextlib
import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from foreign_files import check_regular
from utils import UserError

# Of Pillow's other formats some start programs: EPS runs Ghostscript. JPEG includes MPO.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")

ERASE_PROBABILITY = 0.5
ERASE_AREA = (0.02, 0.3)
ERASE_ASPECT = (0.3, 3.33)
# Longer side to smaller one. Beyond 166 no rectangle of those areas and aspects fits any more, and
# the smaller side resized to 512 pixels would make gigabytes.
MAX_SIDE_RATIO = 100

# What Pillow remarks on files (palettes, metadata) names none of them; what is bad is refused here.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


def load_rgb(path: str | os.PathLike) -> Image.Image:
    """Decodes an image file of one of `FORMATS`, whatever its extension says, to RGB.

    Grey and palette images are expanded, 16-bit ones scaled to 8 bits, alpha is dropped, and the
    EXIF rotation is ignored, as in the original.

    Raises:
        UserError: The file cannot be read or decoded or is none of those, declares a size that
            could exhaust the memory or is a thin strip, or holds floating-point values.
    """
    with _opened(path) as image:
        return _to_rgb(image)


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Width and height from an image file's header; raises like `load_rgb`."""
    with _opened(path) as image:
        return image.size


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Image.Image]:
    try:
        check_regular(path)
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError
            if max(image.size) > MAX_SIDE_RATIO * min(image.size):
                raise UserError(
                    f"{path}: has {width} x {height} pixels, one side more than {MAX_SIDE_RATIO} "
                    "times the other; crop or remove it"
                )
            if image.mode == "F":
                raise UserError(
                    f"{path}: holds floating-point values, whose range is unknown; "
                    "convert it to 8 or 16 bits"
                )
            yield image
    except UserError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserError(
            f"{path}: declares more than {Image.MAX_IMAGE_PIXELS:,} pixels, as no photograph has; "
            "remove or shrink it"
        ) from None
    except Exception as error:  # damaged files raise nearly anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"{path}: cannot be read as an image ({reason})") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit values at 255 and leaves a white image.
        values = np.asarray(image, np.int64) >> 8
        return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).convert("RGB")
    image.load()
    # Alpha is dropped anyway, and Pillow warns of some forms of it in a palette.
    image.info.pop("transparency", None)
    return image if image.mode == "RGB" else image.convert("RGB")


def resized_size(width: int, height: int, smaller_side: int) -> tuple[int, int]:
    """Width and height after the smaller side was resized to `smaller_side` pixels."""
    if width <= height:
        return smaller_side, round(height * smaller_side / width)
    return round(width * smaller_side / height), smaller_side


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
        uint8 array `(height, width, 3)`, within one grey level of resizing first and cropping then.
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
    image, aspect ratio uniform in 0.3 to 3.33, redrawn until it fits) and a random crop.
    """
    smallest, largest = resize
    side = smallest if smallest == largest else int(rng.integers(smallest, largest + 1))
    size = resized_size(width, height, side)
    flip = bool(rng.random() < 0.5)
    erase = _draw_rectangle(rng, *size) if rng.random() < ERASE_PROBABILITY else None
    left, top = (int(rng.integers(max(0, length - crop_size) + 1)) for length in size)
    return View(size, flip, erase, (left, top))


def _draw_rectangle(rng: np.random.Generator, width: int, height: int) -> tuple[int, int, int, int]:
    while True:
        area = rng.uniform(*ERASE_AREA) * width * height
        aspect = rng.uniform(*ERASE_ASPECT)
        erased_width = round(math.sqrt(area / aspect))
        erased_height = round(math.sqrt(area * aspect))
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
        pixels = _reflect_pad(pixels, crop_size)
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


def _reflect_pad(pixels: np.ndarray, side: int) -> np.ndarray:
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
        pixels = _reflect_pad(resize_region(image, size, 0, 0, width, height), crop_size)
        top, left = ((length - crop_size) // 2 for length in pixels.shape[:2])
        return pixels[top : top + crop_size, left : left + crop_size]
    left, top = (width - crop_size) // 2, (height - crop_size) // 2
    return resize_region(image, size, left, top, crop_size, crop_size)


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
