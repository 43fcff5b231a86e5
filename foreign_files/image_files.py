"""Images of strangers, decoded to uint8 RGB."""

import contextlib
import os
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image

from foreign_files.regular import check_regular
from utils import UserError

# Of Pillow's other formats some start programs: EPS runs Ghostscript. JPEG includes MPO.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")

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
