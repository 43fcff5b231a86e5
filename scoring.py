"""From image files to class scores, batch by batch, whatever computes the scores."""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

import resizing
from foreign_files import image_files
from utils import UserError

logger = logging.getLogger(__name__)

_MAX_SIDE = 2**15
# As many as read training images by default. Pillow works without the interpreter's lock.
_READERS = 8


@dataclass(frozen=True)
class View:
    """What a network sees of an image, in evaluation and in use.

    Attributes:
        image_size: Side of the crop from the centre, in pixels.
        test_resize: Smaller side of the image before it is cropped.
        exif_rotation: Whether photographs are turned upright as their EXIF data say.
    """

    image_size: int
    test_resize: int
    exif_rotation: bool

    @classmethod
    def of(cls, info: Any) -> "View":
        """The view that a model was trained for.

        Args:
            info: Facts about the training, with the attributes' names as keys.

        Raises:
            ValueError: The sizes are not among them, or impossible.
        """
        info = info if isinstance(info, dict) else {}
        side, smaller_side = info.get("image_size"), info.get("test_resize")
        # No data set crops less than half of the smaller side.
        if not (isinstance(side, int) and isinstance(smaller_side, int)) or not (
            1 <= side <= smaller_side <= 2 * side <= _MAX_SIDE
        ):
            raise ValueError(
                "the model does not know what size of images it was trained on; give build_model "
                "a Preprocessing with image_size, or classify images of that size"
            )
        return cls(side, smaller_side, info.get("exif_rotation") is True)

    def preprocess(self, image: str | os.PathLike | Image.Image | np.ndarray) -> np.ndarray:
        """As `ImageClassifier.preprocess`."""
        if isinstance(image, str | os.PathLike):
            return views_of_file(image, [self])[0]
        if isinstance(image, Image.Image):
            image = image_files.as_rgb(image, exif_rotation=self.exif_rotation)
        else:
            pixels = np.asarray(image)
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
                raise ValueError(
                    "an image must be a path, a Pillow image or uint8 RGB (height, width, 3), not "
                    f"{pixels.dtype} {pixels.shape}"
                )
            image = Image.fromarray(pixels)
        return self.cropped(image)

    def cropped(self, image: Image.Image) -> np.ndarray:
        """uint8 `(S, S, 3)` of a decoded RGB image, which is upright if it is to be."""
        size = resizing.resized_size(*image.size, self.test_resize)
        return resizing.center_view(image, size, self.image_size)


def views_of_file(path: str | os.PathLike, views: Sequence[View]) -> list[np.ndarray]:
    """What several networks see of an image file, each uint8 `(S, S, 3)`.

    The file is decoded once; twice if some of them see it as it is stored and others upright.

    Raises:
        UserError: The file cannot be read as an image, or holds values of unknown range.
    """
    seen = {}
    for exif_rotation in {view.exif_rotation for view in views}:
        with image_files.decoded_rgb(path, exif_rotation=exif_rotation) as image:
            for view in views:
                if view.exif_rotation == exif_rotation and view not in seen:
                    seen[view] = view.cropped(image)
    return [seen[view] for view in views]


class Classifier(Protocol):
    """A model in whatever form: `models.ImageClassifier`, or one that was exported."""

    class_names: Sequence[str]
    class_ids: Sequence[int | str]
    scores_are_probabilities: bool
    view: View

    def batch_scores(self, images: np.ndarray) -> np.ndarray:
        """The scores `(n, C)` of images `(n, S, S, 3)` that the view gave."""


def score_files(
    models: Sequence[Classifier],
    paths: Iterable[str | os.PathLike],
    batch_size: int,
    *,
    mirrored: bool = False,
) -> Iterator[tuple[str | os.PathLike, np.ndarray | UserError]]:
    """The scores of image files, file by file, as soon as their batch is done.

    Warns of images of which the first network sees one colour or nearly nothing.

    Args:
        models: One, or several of the same classes, whose scores are averaged.
        paths: The files.
        batch_size: Images at a time; the next ones are decoded meanwhile.
        mirrored: Give the means of the scores of each image and its mirror image.

    Yields:
        Each path with its scores `(C,)`, or with the reason why it cannot be read.
    """

    views = [model.view for model in models]

    def read(path):
        return views_of_file(path, views)

    batch, good = [], []
    for path, seen in read_ahead(read, paths, 2 * batch_size):
        batch.append((path, seen))
        if not isinstance(seen, UserError):
            good.append(seen)
            # Over the channels of an array NumPy takes as long as decoding does.
            if doubt := image_files.doubtful(Image.fromarray(seen[0]).getextrema()):
                logger.warning("%s: %s", path, doubt)
        if len(good) == batch_size:
            yield from _scored(models, batch, good, mirrored)
            batch, good = [], []
    yield from _scored(models, batch, good, mirrored)


def mean_scores(
    models: Sequence[Classifier], images: Sequence[np.ndarray], *, mirrored: bool = False
) -> np.ndarray:
    """The means `(n, C)` of several models' scores.

    Args:
        models: Of the same classes.
        images: For each model the same n images as it sees them, `(n, S, S, 3)`.
        mirrored: Also take the mean of each image and its mirror image.
    """
    scores = []
    for model, own in zip(models, images, strict=True):
        views = [own, own[:, :, ::-1]] if mirrored else [own]
        scores += [model.batch_scores(view) for view in views]
    return np.mean(scores, axis=0)


def _scored(models: Sequence[Classifier], batch: list, good: list, mirrored: bool):
    scores = iter(())
    if good:
        images = [np.stack(own) for own in zip(*good, strict=True)]
        scores = iter(mean_scores(models, images, mirrored=mirrored))
    for path, views in batch:
        yield path, views if isinstance(views, UserError) else next(scores)


def read_ahead(
    read: Callable, paths: Iterable[str | os.PathLike], ahead: int
) -> Iterator[tuple[str | os.PathLike, Any]]:
    """Reads files in threads, at most `ahead` of them before they are asked for.

    Yields:
        Each path, in order, with what `read` made of it or the `UserError` it raised.
    """

    def attempt(path):
        try:
            return read(path)
        except UserError as error:
            return error

    waiting = deque()
    pool = ThreadPoolExecutor(_READERS)
    try:
        for path in paths:
            waiting.append((path, pool.submit(attempt, path)))
            if len(waiting) >= ahead:
                path, task = waiting.popleft()
                yield path, task.result()
        while waiting:
            path, task = waiting.popleft()
            yield path, task.result()
    finally:
        pool.shutdown(cancel_futures=True)
