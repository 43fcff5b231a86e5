"""A loaded data set: splits with class indices, statistics, and its batches."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from datasets import statistics
from datasets.batches.cache import files_key
from datasets.batches.split import Split
from datasets.info import ClassId, DatasetSpec

if TYPE_CHECKING:
    from datasets.batches.sequence import BatchSequence


@dataclass
class Dataset:
    """A data set ready for training.

    Attributes:
        spec: What was asked for.
        class_names: Name of each class, by index.
        class_ids: Id of each class in the data set's own files and in hierarchies, by index.
            Indices follow the sorted ids.
        train: Training images; listed, but neither checked nor cached, if only the test images
            were asked for.
        test: Test images; likewise.
        validation: Training images that are held out to select on, `None` if none are.
        train_repeats: How often an epoch goes through the training images; above 1 only for a
            subset, so that the iterations per epoch stay about constant.
        cache_dir: Where decoded images on disk and computed statistics are kept.
        cache: How decoded images are kept: `"none"`, `"ram"` or `"disk"`.
        skipped: Bad images that were left out, with reasons.
        finish: The same images at the size of a training's last epochs; `None` if it stays.
    """

    spec: DatasetSpec
    class_names: list[str]
    class_ids: list[ClassId]
    train: Split
    test: Split
    train_repeats: int
    cache_dir: Path
    cache: str = "none"
    validation: Split | None = None
    skipped: list[str] = field(default_factory=list)
    finish: Dataset | None = None

    @property
    def name(self) -> str:
        """Canonical name with its suffixes."""
        return self.spec.name

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_ids)

    @property
    def images_per_epoch(self) -> int:
        """Training images, each as often as it comes in an epoch."""
        return len(self.train) * self.train_repeats

    @property
    def image_size(self) -> int:
        """Side of the images the network gets, in pixels."""
        return self.spec.image_size

    @property
    def channel_order(self) -> str:
        """`"rgb"` or `"bgr"`: what the network sees. Images and batches are always RGB."""
        return self.spec.channel_order

    @property
    def mean(self) -> tuple[float, float, float]:
        """Means of the R, G and B channels, 0 to 255, whatever the `channel_order`.

        Where none are published: of the training images, and of a subset its own.
        """
        return self._statistics[0]

    @property
    def std(self) -> tuple[float, float, float]:
        """Channel standard deviations, likewise."""
        return self._statistics[1]

    @property
    def std_epsilon(self) -> float:
        """What is added to the standard deviation before dividing by it."""
        return 1e-7 if isinstance(self.train.images, np.ndarray) else 0.0

    @functools.cached_property
    def _statistics(self) -> tuple[statistics.Channels, statistics.Channels]:
        if self.spec.mean and self.spec.std:
            return self.spec.mean, self.spec.std
        images = self.train.images
        if isinstance(images, np.ndarray):
            found = statistics.of_array(images)
        else:
            kept = self.cache_dir / f"{self.spec.info.name}-{files_key(images)}.statistics.json"
            found = statistics.of_files(self.name, images, kept)
        return statistics.usable(self.name, found)

    def check_images(self) -> tuple[list[str], list[str]]:
        """Decodes every listed image, and warns of what is wrong with all training images.

        Returns:
            The name of each that cannot be decoded, with the reason; and of each that can, but is
            of one colour or nearly black.
        """
        if isinstance(self.train.images, np.ndarray):
            return [], []
        what = "checking images"
        counts, bad, doubtful = statistics.examine(self.train.images, what)
        if counts.any():
            statistics.usable(self.name, statistics.of_counts(counts))
        for split in (self.validation, self.test):
            if split:
                _, more_bad, more_doubtful = statistics.examine(split.images, what)
                bad, doubtful = bad + more_bad, doubtful + more_doubtful
        return bad, doubtful

    def image_names(self, split: Split) -> list[str]:
        """The paths of a split's images under the root; of images in arrays their positions."""
        if isinstance(split.images, np.ndarray):
            return [str(i) for i in range(len(split))]
        return [os.path.relpath(path, self.spec.root) for path in split.images]

    def counts(self) -> dict[str, int]:
        """Numbers of classes and images, for reports."""
        per_class = np.bincount(self.train.labels, minlength=self.num_classes)
        return {
            "classes": self.num_classes,
            "train_images": len(self.train),
            "train_images_per_class_min": int(per_class.min()),
            "train_images_per_class_max": int(per_class.max()),
            "train_repeats": self.train_repeats,
            **({"validation_images": len(self.validation)} if self.validation else {}),
            "test_images": len(self.test),
            "skipped_images": len(self.skipped),
        }

    def train_batches(self, batch_size: int, *, seed: int, **reading) -> BatchSequence:
        """Shuffled and augmented batches; every image `train_repeats` times per epoch.

        Args:
            batch_size: Images per batch; the last of an epoch may be smaller.
            seed: Determines order and augmentation, with the epoch.
            **reading: As for `BatchSequence`.

        Returns:
            A `keras.utils.PyDataset` of `(images, labels)`: uint8 RGB `(batch, side, side, 3)` and
            int32 `(batch,)`. Pass it to `fit` with `shuffle=False`.
        """
        options = {"seed": seed, "train": True, "repeats": self.train_repeats}
        return self._batches(self.train, batch_size, reading, options)

    def test_batches(self, batch_size: int, **reading) -> BatchSequence:
        """The test images in the order of `test`, centre-cropped; arguments as `train_batches`."""
        return self._batches(self.test, batch_size, reading, {"seed": 0, "train": False})

    def validation_batches(self, batch_size: int, **reading) -> BatchSequence:
        """What an epoch is judged by: the validation images or, without them, the test images."""
        judged = replace(self, test=self.validation or self.test)
        return judged.test_batches(batch_size, **reading)

    def _batches(self, split, batch_size, reading, options) -> BatchSequence:
        from datasets.batches.pipeline import ArrayPipeline, FilePipeline
        from datasets.batches.sequence import BatchSequence

        spec = self.spec
        options["policy"] = spec.augmentation if options["train"] else None
        if isinstance(split.images, np.ndarray):
            if options["policy"]:
                options["mean"] = self.mean  # the colour of cutout
            pipeline = ArrayPipeline(split, spec.image_size, spec.info.augmentation, **options)
        else:
            resize = spec.resize
            if not options["train"] or options["policy"]:
                resize = (spec.test_resize, spec.test_resize)
            pipeline = FilePipeline(split, spec.image_size, resize, **options)
        return BatchSequence(pipeline, batch_size, **reading)
