"""Small pictures in the text of a page, of bounded size."""

import base64
import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

import datasets
from reports.elements import attribute

# Pixels of a picture's side; what is smaller stays as it is.
_SIDE = 96
# Up to this side PNG, without loss, is about as small as JPEG.
_EXACT = 32
# From little to much: dark blue, magenta, orange, yellow.
_HEAT = np.array([[20, 10, 90], [190, 30, 120], [250, 140, 30], [255, 245, 120]], float)


class Pictures:
    """Makes the pictures of a page, until they are too many bytes for one file.

    Args:
        most: Bytes of all of them, as text.
    """

    def __init__(self, most: int):
        self._left = most

    def image(self, pixels: np.ndarray, text: str) -> str:
        """An `img` element.

        Args:
            pixels: uint8 RGB, `(height, width, 3)`.
            text: What it shows, for those who cannot see it.
        """
        address = data_uri(pixels)
        if len(address) > self._left:
            return '<span class="none">no room</span>'
        self._left -= len(address)
        coarse = ' class="coarse"' if max(pixels.shape[:2]) <= 64 else ""
        return f'<img{coarse} src="{address}" alt="{attribute(text)}" loading="lazy">'


def data_uri(pixels: np.ndarray) -> str:
    """An image as the address that holds it: PNG if it is small, otherwise a JPEG."""
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    if max(image.size) <= _EXACT:
        kind = "png"
        image.save(buffer, "PNG", optimize=True)
    else:
        kind = "jpeg"
        image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        image.save(buffer, "JPEG", quality=75)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def views(dataset, split, chosen: Sequence[int]) -> np.ndarray:
    """Images of a split as the network sees them in evaluation, uint8 `(n, side, side, 3)`.

    Args:
        dataset: The data set.
        split: One of its splits.
        chosen: Which images.
    """
    side = dataset.image_size
    if not len(chosen):
        return np.empty((0, side, side, 3), np.uint8)
    part = replace(dataset, test=split.take(np.asarray(chosen)))
    batches = part.test_batches(min(len(chosen), 32), queue_size=1)
    with datasets.reading_errors(batches):
        return np.concatenate([batches[i][0] for i in range(len(batches))])


def heat_map(pixels: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """An image with a map laid over it: the more, the brighter.

    Args:
        pixels: uint8 `(height, width, 3)`.
        attention: In [0, 1], of any height and width.

    Returns:
        uint8 RGB, of the image's size, but with a side of 96 pixels or more.
    """
    size = tuple(max(side, _SIDE) for side in pixels.shape[1::-1])
    image = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR), float)
    weights = Image.fromarray(attention.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    weights = np.clip(np.asarray(weights), 0, 1)
    places = np.linspace(0, 1, len(_HEAT))
    heat = np.stack([np.interp(weights, places, _HEAT[:, i]) for i in range(3)], axis=-1)
    grey = image.mean(axis=-1, keepdims=True)
    return np.clip(0.45 * grey + 0.55 * heat, 0, 255).astype(np.uint8)
