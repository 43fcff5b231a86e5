"""Images of strangers, decoded to uint8 RGB."""

import contextlib
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from foreign_files.regular import check_regular
from utils import UserError

# Of Pillow's other formats some start programs: EPS runs Ghostscript. JPEG includes MPO.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
_FORMATS_IN_WORDS = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"

# Longer side to smaller one. Beyond 166 no rectangle of those areas and aspects fits any more, and
# the smaller side resized to 512 pixels would make gigabytes.
MAX_SIDE_RATIO = 100

# Phones make photographs of 200 million pixels. An image of very many has to be a file of some
# size: photographs take a tenth of a byte per pixel and more.
Image.MAX_IMAGE_PIXELS = 256_000_000
_MANY_PIXELS = 32_000_000
_PIXELS_PER_BYTE = 100
# Pixels of a tile of a TIFF, which is decoded as a whole; usual are 512 x 512.
_MAX_TILE = 2**24
# Each goes over all pixels once more; usual are 10 of a progressive JPEG, and 3 pictures in a file.
_MAX_SCANS = 100
# Bytes that the images decoded at the same time may take, and what a pixel takes at most: its
# colours, a copy turned upright, coefficients of a JPEG, two canvases of a WebP.
_MEMORY = 3 * 2**30
_BYTES_PER_PIXEL = 16
# Colour profiles and descriptions of more than Pillow's 1 MB are in good photographs.
PngImagePlugin.MAX_TEXT_CHUNK = 32 * 2**20
PngImagePlugin.MAX_TEXT_MEMORY = 64 * 2**20

# What Pillow remarks on files (palettes, metadata) names none of them; what is bad is refused here.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

_TRANSPOSE = Image.Transpose
# How an image is turned upright, by the value of its EXIF tag `Orientation`.
_UPRIGHT = {
    2: _TRANSPOSE.FLIP_LEFT_RIGHT,
    3: _TRANSPOSE.ROTATE_180,
    4: _TRANSPOSE.FLIP_TOP_BOTTOM,
    5: _TRANSPOSE.TRANSPOSE,
    6: _TRANSPOSE.ROTATE_270,
    7: _TRANSPOSE.TRANSVERSE,
    8: _TRANSPOSE.ROTATE_90,
}
_SIDES_SWAPPED = (5, 6, 7, 8)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis")
# Where no value is greater, the values are hardly those of an image, or of another range.
BLACK = 15


def load_rgb(path: str | os.PathLike, *, exif_rotation: bool = False) -> Image.Image:
    """Decodes an image file of one of `FORMATS`, whatever its extension says, to RGB.

    Grey and palette images are expanded, 12- and 16-bit ones scaled to 8 bits; alpha is dropped.

    Args:
        path: The file.
        exif_rotation: Turn the image upright as its EXIF data say, as cameras and phones expect.
            The original ignores them.

    Raises:
        UserError: The file cannot be read or decoded or is none of those, declares a size that
            could exhaust the memory or is a thin strip, or holds values whose range is unknown.
    """
    with decoded_rgb(path, exif_rotation=exif_rotation) as image:
        return image


@contextlib.contextmanager
def decoded_rgb(path: str | os.PathLike, *, exif_rotation: bool = False) -> Iterator[Image.Image]:
    """As `load_rgb`, of an image that is let go in the end: until then its memory is counted."""
    with contextlib.ExitStack() as held:
        with _opened(path) as image:
            held.enter_context(_memory.taken(_BYTES_PER_PIXEL * image.width * image.height))
            _check_work(path, image)
            rgb = _upright_rgb(image, _orientation(image) if exif_rotation else 1)
        yield rgb


def as_rgb(image: Image.Image, *, exif_rotation: bool = False) -> Image.Image:
    """An opened image as `load_rgb` would decode its file; itself if there is nothing to change.

    Raises:
        UserError: It holds values whose range is unknown.
    """
    name = getattr(image, "filename", None) or "the image"
    _check_range(name, image)
    orientation = _orientation(image) if exif_rotation else 1
    if "transparency" in image.info and not image.mode.startswith("I"):
        image = image.copy()  # what is dropped is the caller's
    return _upright_rgb(image, orientation)


def image_size(path: str | os.PathLike, *, exif_rotation: bool = False) -> tuple[int, int]:
    """Width and height from an image file's header; arguments and errors as for `load_rgb`."""
    with _opened(path) as image:
        width, height = image.size
        if exif_rotation and _orientation(image) in _SIDES_SWAPPED:
            return height, width
        return width, height


def doubtful(extrema: Sequence[tuple[int, int]]) -> str | None:
    """What makes an image's pixels doubtful, though they can be read; `None` for most images.

    Args:
        extrema: The smallest and the largest value, 0 to 255, of each channel.
    """
    found = None
    if all(least == most for least, most in extrema):
        found = f"all pixels have the value {', '.join(str(most) for _, most in extrema)}"
    if max(most for _, most in extrema) <= BLACK:
        found = found or f"nearly black: no value is above {BLACK} of 255"
        found += (
            "; values of another range than the format's, as 12 bits in 16 or 0 to 1, have to be "
            "scaled up"
        )
    return found


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Image.Image]:
    try:
        check_regular(path)
        _check_webp(path)
        with Image.open(path, formats=FORMATS) as image:
            _check_size(path, *image.size)
            _check_range(path, image)
            yield image
    except UserError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserError(
            f"{path}: declares more than {Image.MAX_IMAGE_PIXELS:,} pixels; remove or shrink it"
        ) from None
    except Exception as error:  # damaged files raise nearly anything
        if _is_heif(path):
            raise UserError(
                f"{path}: is a HEIC or AVIF photograph, which is not read; convert it to JPEG "
                "(heif-convert, or `mogrify -format jpg`)"
            ) from None
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):  # names the path once more
            reason = f"expected {_FORMATS_IN_WORDS}" if os.path.getsize(path) else "an empty file"
        raise UserError(f"{path}: cannot be read as an image ({reason})") from None


def _check_size(path: str | os.PathLike, width: int, height: int) -> None:
    if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError
    if width * height > max(_MANY_PIXELS, _PIXELS_PER_BYTE * os.path.getsize(path)):
        raise UserError(
            f"{path}: declares {width * height:,} pixels in {os.path.getsize(path):,} bytes, as no "
            "photograph has; remove or shrink it"
        )
    if max(width, height) > MAX_SIDE_RATIO * min(width, height):
        raise UserError(
            f"{path}: has {width} x {height} pixels, one side more than {MAX_SIDE_RATIO} "
            "times the other; crop or remove it"
        )


def _check_webp(path: str | os.PathLike) -> None:
    """Checks the size of a WebP before it is opened, when its canvas is made."""
    with open(path, "rb") as file:
        head = file.read(30)
    if head[8:16] == b"WEBPVP8X":
        _check_size(path, *(1 + int.from_bytes(head[at : at + 3], "little") for at in (24, 27)))
    elif head[8:16] == b"WEBPVP8 ":
        _check_size(
            path, *(int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (26, 28))
        )
    elif head[8:16] == b"WEBPVP8L":
        bits = int.from_bytes(head[21:25], "little")
        _check_size(path, 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))


def _check_work(path: str | os.PathLike, image: Image.Image) -> None:
    """Refuses what takes far more memory or time than an image of its size."""
    if image.format == "TIFF":
        width, height = (image.tag_v2.get(tag, 1) for tag in (322, 323))
        if width * height > _MAX_TILE:
            raise UserError(
                f"{path}: declares a tile of {width} x {height} pixels; save it without tiles"
            )
    if image.format in ("JPEG", "MPO"):
        scans = Path(path).read_bytes().count(b"\xff\xda")
        if scans > _MAX_SCANS:
            raise UserError(
                f"{path}: is a JPEG of {scans} scans, expected at most {_MAX_SCANS}; save it anew"
            )


class _Memory:
    """What all threads may take together; who asks for more than there is waits."""

    def __init__(self, size: int):
        self.size = self.left = size
        self.changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, size: int) -> Iterator[None]:
        size = min(size, self.size)
        with self.changed:
            self.changed.wait_for(lambda: self.left >= size)
            self.left -= size
        try:
            yield
        finally:
            with self.changed:
                self.left += size
                self.changed.notify_all()


_memory = _Memory(_MEMORY)


def _is_heif(path: str | os.PathLike) -> bool:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        head = file.read(12)
        return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS
    return False


def _check_range(path: str | os.PathLike, image: Image.Image) -> None:
    if unknown := _unknown_range(image):
        raise UserError(
            f"{path}: holds {unknown}, whose range is unknown; convert it to 8 or 16 bits"
        )


def _unknown_range(image: Image.Image) -> str | None:
    """What kind of values an image holds, if their format does not say what is black and white."""
    if image.mode == "F":
        return "floating-point values"
    if image.mode == "I" and image.format in ("TIFF", None):
        return "signed or 32-bit integers"
    # The tag SampleFormat, which Pillow ignores for 8 bits: 2 is signed, 3 floating-point.
    if image.format == "TIFF" and set(image.tag_v2.get(339, (1,))) - {1, 4}:
        return "signed or floating-point values"
    return None


def _orientation(image: Image.Image) -> int:
    """The EXIF tag `Orientation`; 1, upright, if there is none, or it makes no sense."""
    if image.format == "TIFF":
        return 1  # Pillow always applies it to these.
    try:
        # Not the PNG's own method, which decodes the image to look for the tag behind the pixels.
        return int(Image.Image.getexif(image).get(0x0112, 1))
    except Exception:  # damaged metadata, of which only this one is of use
        return 1


def _upright_rgb(image: Image.Image, orientation: int) -> Image.Image:
    rgb = _to_rgb(image)
    return rgb.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else rgb


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _grey_to_rgb(image)
    image.load()
    # Alpha is dropped anyway, and Pillow warns of some forms of it in a palette.
    image.info.pop("transparency", None)
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey_to_rgb(image: Image.Image) -> Image.Image:
    """A grey image of 9 to 16 bits; Pillow's own conversion clips at 255 and makes it white."""
    tags = image.tag_v2 if image.format == "TIFF" else {}
    bits = max(tags.get(258, (16,)))
    values = np.asarray(image)
    grey = np.empty(values.shape, np.uint8)
    for row, row_values in zip(grey, values, strict=True):  # all at once take memory
        row[:] = np.clip(row_values >> (bits - 8), 0, 255)
    if tags.get(262) == 0:  # of these bits Pillow ignores that white is 0
        grey = 255 - grey
    return Image.fromarray(grey).convert("RGB")
