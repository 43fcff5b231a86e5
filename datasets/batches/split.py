"""The images and labels that batches are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.batches.cache import PixelStore


@dataclass
class Split:
    """The images of one split, in the order of the data set's files.

    Attributes:
        images: uint8 array `(n, side, side, 3)`, or paths.
        labels: int64 class index of each image, `(n,)`.
        store: The decoded images, if they are cached.
        exif_rotation: Whether image files are turned upright as their EXIF data say.
    """

    images: np.ndarray | list[str]
    labels: np.ndarray
    store: PixelStore | None = None
    exif_rotation: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: np.ndarray) -> Split:
        """The images at the positions `chosen`."""
        if isinstance(self.images, np.ndarray):
            return Split(self.images[chosen], self.labels[chosen])
        store = self.store and self.store.take(chosen)
        images = [self.images[i] for i in chosen]
        return Split(images, self.labels[chosen], store, self.exif_rotation)
