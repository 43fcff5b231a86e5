"""Whether an exported model does what the model does, and what it costs."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import scoring
from utils import UserError

BATCH = 32


@dataclass(frozen=True)
class Comparison:
    """What two forms of a model say of the same images.

    Attributes:
        images: How many.
        same: Of how many the best class is the same.
        classes: How many classes are the best one of an image, by the model.
        difference: The largest difference of two scores.
        milliseconds: Per image of each form, in batches of at most `BATCH`.
    """

    images: int
    same: int
    classes: int
    difference: float
    milliseconds: tuple[float, float]

    @property
    def agreement(self) -> float:
        """The share of images of which the best class is the same."""
        return self.same / self.images


def compare(
    model: scoring.Classifier, exported: scoring.Classifier, images: np.ndarray
) -> Comparison:
    """Compares two forms of a model on images `(n, S, S, 3)` that `preprocess` gave, n ≥ 1."""
    batches = [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
    scores, milliseconds = [], []
    for form in (model, exported):
        form.batch_scores(batches[0])  # it makes ready what the others of this size use
        seconds, parts = 0.0, []
        whole = [batch for batch in batches if len(batch) == len(batches[0])]
        for batch in batches:
            started = time.perf_counter()
            parts.append(form.batch_scores(batch))
            if len(batch) == len(batches[0]):
                seconds += time.perf_counter() - started
        scores.append(np.concatenate(parts))
        milliseconds.append(1000 * seconds / sum(map(len, whole)))
    ours, theirs = scores
    return Comparison(
        images=len(images),
        classes=len(np.unique(ours.argmax(axis=1))),
        same=int(np.sum(ours.argmax(axis=1) == theirs.argmax(axis=1))),
        difference=float(np.abs(ours - theirs).max()),
        milliseconds=tuple(milliseconds),
    )


def spread(count: int, most: int) -> np.ndarray:
    """At most `most` of the numbers from 0 to count − 1, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def seen_images(model: scoring.Classifier, paths: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """What a model sees of image files, `(n, S, S, 3)`, and why others cannot be read."""
    images, errors = [], []
    for _, pixels in scoring.read_ahead(model.view.preprocess, paths, 2 * BATCH):
        if isinstance(pixels, UserError):
            errors.append(str(pixels))
        else:
            images.append(pixels)
    return np.array(images, np.uint8), errors


def random_images(side: int, count: int) -> np.ndarray:
    """Coloured clouds `(count, side, side, 3)`, the same in every call."""
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return np.stack(
        [
            np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
            for coarse in colours
        ]
    )


def size_of(path: str | os.PathLike) -> int:
    """Bytes of a file, or of all files in a folder."""
    path = Path(path)
    files: Iterator[Path] = path.rglob("*") if path.is_dir() else iter([path])
    return sum(file.stat().st_size for file in files if file.is_file())
