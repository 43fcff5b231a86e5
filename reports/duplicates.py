"""Test images that look like training images."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from PIL import Image

from foreign_files import image_files
from utils import UserError

# Smaller images have too few details to tell two of a kind from the same one twice.
LEAST_SIDE = 24
# Bits of 64 that may differ between two versions of an image, as of other sizes or qualities.
_MOST_BITS = 14
# Mean difference of two small views over what the first differs from its own mean.
_MOST_DIFFERENCE = 0.35
_VIEW = 16
# Test images that are compared with all training images at a time.
_CHUNK = 256


def find(train, test) -> list[tuple[int, int]]:
    """The pairs `(test image, training image)` that look alike, the closest first.

    Candidates have nearly the same perceptual hash, and are kept if small views of them, also
    mirrored, differ little. A test image is in one pair at most.

    Args:
        train, test: Splits of a data set.
    """
    (train_hashes, train_views), (test_hashes, test_views) = map(_fingerprints, (train, test))
    found = []
    for start in range(0, len(test_hashes), _CHUNK):
        part = test_hashes[start : start + _CHUNK, :1]
        bits = np.bitwise_count(part[:, None] ^ train_hashes).min(axis=2)
        for row, candidates in _rows(bits <= _MOST_BITS):
            own = test_views[start + row]
            apart = [_difference(own, train_views[i]) for i in candidates]
            nearest = int(np.argmin(apart))
            if apart[nearest] <= _MOST_DIFFERENCE:
                found.append((apart[nearest], start + row, int(candidates[nearest])))
    return [(test_image, train_image) for _, test_image, train_image in sorted(found)]


def _rows(chosen: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for row in np.flatnonzero(chosen.any(axis=1)):
        yield int(row), np.flatnonzero(chosen[row])


def _difference(first: np.ndarray, second: np.ndarray) -> float:
    if not np.isfinite(first).all():
        return np.inf
    contrast = float(np.abs(first - first.mean()).mean()) + 1
    return min(float(np.abs(first - view).mean()) for view in (second, second[:, ::-1])) / contrast


def _decoded(image, exif_rotation: bool) -> AbstractContextManager[Image.Image]:
    if isinstance(image, np.ndarray):
        return nullcontext(Image.fromarray(image))
    return image_files.decoded_rgb(image, exif_rotation=exif_rotation)


def _fingerprints(split) -> tuple[np.ndarray, np.ndarray]:
    """Hashes `(n, 2)` of the images and their mirror images, uint64, and views `(n, 16, 16, 3)`.

    An image that cannot be read is like none.
    """
    import imagehash

    def fingerprint(image):
        try:
            with _decoded(image, split.exif_rotation) as decoded:
                # Both are made of this view, in which the sides may have another ratio.
                image = decoded.resize((64, 64), Image.Resampling.BOX, reducing_gap=2.0)
        except UserError:
            return None
        mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        hashes = [imagehash.phash(one).hash.ravel() for one in (image, mirrored)]
        small = image.resize((_VIEW, _VIEW), Image.Resampling.BOX)
        return np.packbits(hashes, axis=1).view(np.uint64)[:, 0], np.asarray(small)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(fingerprint, split.images))
    hashes = np.zeros((len(found), 2), np.uint64)
    views = np.full((len(found), _VIEW, _VIEW, 3), np.inf, np.float32)
    for i, one in enumerate(found):
        if one is not None:
            hashes[i], views[i] = one
    return hashes, views
