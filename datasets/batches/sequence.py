"""Batches for Keras: deterministic, made in parallel, bounded in memory."""

import logging
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import keras
import numpy as np

from datasets.augmentation import Mixing
from datasets.batches.mixing import mix_batch
from datasets.batches.pipeline import Pipeline

logger = logging.getLogger(__name__)

# Most that batches in the making and batches waiting may take; at 448 x 448 pixels and 96 images
# per batch these are 11 batches. The rest of the memory is for the images being decoded.
QUEUE_BYTES = 640 * 2**20

# Images and labels of a batch, its weights if it has any, and the tasks that fill the images.
_Job = tuple[np.ndarray, np.ndarray, list[np.ndarray], list[Future]]


class BatchSequence(keras.utils.PyDataset):
    """The batches of one split, in the order of the current epoch.

    A batch is `(images, labels)`: uint8 `(batch, side, side, 3)` and int32 `(batch,)`; the last
    one may be smaller. It depends on the seed, the epoch and the batch's place only.

    Devices that share a batch need equal parts of it: with `multiple` above 1 the last batch is
    filled up to a multiple of that with its own images over again, which have the label -1 and
    do not count, and every batch has a third part, weights `(batch,)` float32. All weights of a
    batch are the same, its size over the images that count: the mean over a filled batch, with
    losses of 0 for the label -1, is then the mean over those images.

    With `mixing` the labels of a batch are float32 `(batch, 3)`, as `mixing.mix_batch` has them;
    its images are mixed by the threads that read.

    Of several processes each gives, and reads, its share of every batch only. Their shares, one
    after the other, are the batch; of a batch that is computed in parts, it is so for every part.

    Threads of our own make the batches ahead, several at one batch. Keras' enqueuer would give a
    whole batch to one thread, so that the first of every epoch takes as long as with one worker,
    and waits a tenth of a second at the end of each epoch; it is off (`workers=1` in Keras' sense).
    TensorFlow then takes a batch ahead itself, and some more while batches come in bursts.

    Args:
        pipeline: Makes the images.
        batch_size: Images per batch.
        workers: Threads.
        queue_size: Most batches made ahead; their memory is bounded too.
        initial_epoch: Epoch to begin with, as after a resume.
        label_keys: Give the labels as a dictionary with these keys, one per output.
        multiple: What the size of every batch is a multiple of.
        share: Which of how many processes this is.
        parts: In how many parts a batch will be computed.
        mixing: Mix images of two.

    Attributes:
        epoch: Number of the epoch whose batches are given; Keras' `fit` advances it.
        error: The first error a worker met. TensorFlow shows only its text, inside its own.
        queue_size: Batches made ahead, after bounding their memory.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        batch_size: int,
        *,
        workers: int = 8,
        queue_size: int = 100,
        initial_epoch: int = 0,
        label_keys: Sequence[str] | None = None,
        multiple: int = 1,
        share: tuple[int, int] = (0, 1),
        parts: int = 1,
        mixing: Mixing | None = None,
    ):
        super().__init__(workers=1)
        if batch_size % multiple:
            raise ValueError(f"batch_size {batch_size} is no multiple of {multiple}")
        if share[1] > 1 and multiple % (share[1] * parts):
            raise ValueError(f"{multiple} is no multiple of {share[1]} shares of {parts} parts")
        if share[1] > 1 and mixing:
            raise ValueError("the images of one process only would be mixed with one another")
        batch_bytes = batch_size // share[1] * pipeline.image_size**2 * 3
        self.queue_size = max(1, min(queue_size, QUEUE_BYTES // batch_bytes))
        if self.queue_size < queue_size:
            logger.info(
                "queue of %d batches instead of %d: one takes %.0f MB, all of them at most %.0f MB",
                self.queue_size,
                queue_size,
                batch_bytes / 1e6,
                QUEUE_BYTES / 1e6,
            )
        self.epoch = initial_epoch
        self.error: Exception | None = None
        self._pipeline = pipeline
        self._batch_size = batch_size
        self._label_keys = label_keys
        self._multiple = multiple
        self._share = share
        self._parts = parts
        self._mixing = mixing
        self._lock = threading.Lock()
        self._first_batch = 0
        self._begun = self._exhausted = False
        self._ahead: dict[tuple[int, int], _Job] = {}  # by epoch and batch
        self._executor = ThreadPoolExecutor(max(1, workers), "read")
        weakref.finalize(self, self._executor.shutdown, wait=False, cancel_futures=True)

    def start_at(self, epoch: int, batch: int) -> None:
        """Leaves out the batches before this one; the epochs that follow are whole again."""
        self.epoch, self._first_batch = epoch, batch

    def __len__(self) -> int:
        return -(-len(self._pipeline) // self._batch_size) - self._first_batch

    def __getitem__(self, index: int):
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        with self._lock:
            epoch = self.epoch
            self._exhausted = self._exhausted or index == len(self) - 1
            index, stop = index + self._first_batch, len(self) + self._first_batch
            wanted = [(epoch, i) for i in range(index, min(index + self.queue_size, stop))]
            for key in self._ahead.keys() - set(wanted):
                _cancel(self._ahead.pop(key))
            for key in wanted:
                if key not in self._ahead:
                    self._ahead[key] = self._start(*key)
            job = self._ahead.pop(wanted[0])
        images, labels, weights, tasks = job
        try:
            for task in tasks:
                task.result()
        except Exception as error:
            with self._lock:
                self.error = self.error or error
                for other in (job, *self._ahead.values()):
                    _cancel(other)
                self._ahead.clear()
            raise
        if self._label_keys:
            labels = dict.fromkeys(self._label_keys, labels)
        return images, labels, *weights

    def on_epoch_begin(self) -> None:
        self._begun, self._exhausted = True, False

    def on_epoch_end(self) -> None:
        # Keras calls this before the first epoch too, and there, to see the shapes, fetches one
        # or two batches; only an epoch that was begun and fetched to its end is over.
        if self._begun and self._exhausted:
            self.epoch += 1
            self._first_batch = 0
        self._begun = False

    def _start(self, epoch: int, index: int) -> _Job:
        pipeline, side = self._pipeline, self._pipeline.image_size
        start = index * self._batch_size
        samples = pipeline.order(epoch)[start : start + self._batch_size]
        places, counts = self._rows(len(samples))
        labels = np.where(counts, pipeline.labels[samples[places]], np.int32(-1))
        weights = []
        if self._multiple > 1:
            size = len(places) * self._share[1]
            weights.append(np.full(len(places), size / len(samples), np.float32))
        images = np.empty((len(places), side, side, 3), np.uint8)
        # A task makes images whose places follow one another.
        gaps = np.flatnonzero(np.diff(places) != 1) + 1
        step = pipeline.images_per_task
        tasks = [
            self._executor.submit(
                _fill, pipeline, images[i:j], samples[places[i:j]], epoch, start + places[i]
            )
            for begin, end in zip([0, *gaps], [*gaps, len(places)], strict=True)
            for i in range(begin, end, step)
            for j in [min(i + step, end)]
        ]
        if self._mixing:
            labels = np.stack([labels, labels, np.ones_like(labels)], 1).astype(np.float32)
            arguments = (self._mixing, images, labels, start + places, pipeline.seed, epoch)
            # Queued behind what it waits for.
            tasks.append(self._executor.submit(_mix, list(tasks), *arguments))
        return images, labels, weights, tasks

    def _rows(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """What this process gives of a batch of `count` images: their places, and which count."""
        rows = np.arange(-(-count // self._multiple) * self._multiple)
        index, shares = self._share
        if shares > 1:
            rows = rows.reshape(self._parts, shares, -1)[:, index].ravel()
        return rows % count, rows < count


def _fill(pipeline: Pipeline, *args) -> None:
    # An interrupted program waits for the tasks it still has queued: make that quick.
    if not threading.main_thread().is_alive():
        raise RuntimeError("the program is ending")
    pipeline.fill(*args)


def _mix(tasks: list[Future], *args) -> None:
    for task in tasks:
        task.result()
    mix_batch(*args)


def _cancel(job: _Job) -> None:
    for task in job[-1]:
        task.cancel()
