"""Batches in parts, for devices that cannot hold a whole one."""

import keras
import numpy as np

from utils import UsageError


class SplitBatches(keras.utils.PyDataset):
    """The batches of a `BatchSequence`, each in the same number of parts.

    With an optimiser that accumulates as many gradients, a step has the gradient of the whole
    batch: the images of a part are weighted by its share where parts are of unequal size. Batch
    normalisation is the exception: it sees each part alone.

    Args:
        batches: The whole batches, with weights or without.
        num_images: Images of an epoch, counting those that fill up the last batch.
        batch_size: Images of a batch but for the last.
        parts: Parts of each batch.

    Raises:
        UsageError: There are fewer images in a batch than parts.
    """

    def __init__(self, batches, num_images: int, batch_size: int, parts: int):
        super().__init__(workers=1)
        self.parts = parts
        self._batches = batches
        self._first_part = 0
        self._whole: tuple[tuple[int, int], tuple] | None = None
        last = num_images % batch_size or batch_size
        if last < parts:
            raise UsageError(
                f"--accumulate_steps {parts}: the last batch of an epoch has {last} images only; "
                f"use {last} or less"
            )

    @property
    def error(self) -> Exception | None:
        return self._batches.error

    def start_at(self, epoch: int, step: int) -> None:
        """Leaves out the steps, which are parts, before this one."""
        self._batches.start_at(epoch, step // self.parts)
        self._first_part = step % self.parts

    def __len__(self) -> int:
        return len(self._batches) * self.parts - self._first_part

    def __getitem__(self, index: int):
        number, part = divmod(index + self._first_part, self.parts)
        if self._whole is None or self._whole[0] != (self._batches.epoch, number):
            self._whole = (self._batches.epoch, number), self._batches[number]
        images, labels, *weights = self._whole[1]
        chosen = np.array_split(np.arange(len(images)), self.parts)[part]
        share = np.full(len(chosen), len(chosen) * self.parts / len(images), "float32")
        if weights:
            share *= weights[0][chosen]
        return images[chosen], keras.tree.map_structure(lambda y: y[chosen], labels), share

    def on_epoch_begin(self) -> None:
        self._batches.on_epoch_begin()

    def on_epoch_end(self) -> None:
        epoch = self._batches.epoch
        self._batches.on_epoch_end()
        if self._batches.epoch != epoch:
            self._first_part = 0
