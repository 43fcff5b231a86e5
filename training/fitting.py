"""Fitting a model: `model.fit` that begins where a snapshot is, and explains what stopped it."""

from argparse import Namespace
from collections.abc import Collection, Sequence

import keras
import numpy as np
from keras import ops

from training import memory
from training.data import Finish
from training.learning import callbacks
from training.reporting import evaluation
from training.resuming import saving, snapshots
from utils import UserError


class Validation:
    """What epochs are judged by, and which ones.

    It is the evaluation that a run ends with, and not Keras' own: losses are means over images,
    one function of the network serves both, and the last epoch is not evaluated twice.

    Args:
        batches: The images as a `PyDataset`.
        labels: Their class indices in that order, `(images,)`.
        top_k: Further accuracies among the k best.
        every: Evaluate after so many epochs; 0 does not.
        also_after: And after these numbers of epochs.

    Attributes:
        last: The newest evaluation, `None` before the first.
        last_epoch: After how many epochs that was.
    """

    def __init__(
        self,
        batches,
        labels: np.ndarray,
        *,
        top_k: Sequence[int] = (),
        every: int = 1,
        also_after: Collection[int] = (),
    ):
        self.batches = batches
        self.last: evaluation.Evaluation | None = None
        self.last_epoch: int | None = None
        self._labels = labels
        self._top_k = top_k
        self._every = every
        self._also_after = also_after

    def is_due(self, epochs_done: int) -> bool:
        """Whether to evaluate after so many epochs."""
        regular = self._every and epochs_done % self._every == 0
        return bool(regular) or epochs_done in self._also_after

    def evaluate(self, model, epochs_done: int, hooks: keras.callbacks.Callback) -> dict:
        """The scores of a model, by the names that logs have for them.

        Args:
            model: As it is after the epoch.
            epochs_done: Complete epochs.
            hooks: Its `on_predict_batch_begin` is called before each batch.
        """
        self.last = evaluation.evaluate(
            model, self.batches, self._labels, top_k=self._top_k, hooks=[hooks]
        )
        self.last_epoch = epochs_done
        return {f"val_{name}": value for name, value in self.last.scores.items()}


class _Hooks(keras.callbacks.Callback):
    """Lets callbacks take part in an evaluation."""

    def __init__(self, together: keras.callbacks.CallbackList):
        super().__init__()
        self._together = together

    def on_predict_batch_begin(self, batch, logs=None):
        self._together.on_test_batch_begin(batch)


class _Callbacks(keras.callbacks.CallbackList):
    """Callbacks that see the steps of an epoch counted from its start, not from a resumption.

    They also tell the batches which epoch begins: Keras looks at the first batches before it,
    with or without an epoch's begin and end around that, by backend and strategy. And they
    evaluate an epoch at its end, before the others see it.
    """

    first_step = 0
    batches = None
    validation: Validation | None = None

    def on_epoch_begin(self, epoch, logs=None):
        if self.batches is not None:
            self.batches.start_at(epoch, self.first_step)
        super().on_epoch_begin(epoch, logs)

    def on_train_batch_begin(self, batch, logs=None):
        super().on_train_batch_begin(batch + self.first_step, logs)

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch + self.first_step, logs)

    def on_epoch_end(self, epoch, logs=None):
        # Some scores are this project's own, as Keras' names and averages of them are others.
        logs = dict(logs or {})
        if self.validation and self.validation.is_due(epoch + 1):
            super().on_test_begin()
            model = self.callbacks[-1].model  # which puts JAX's variables in order
            logs |= self.validation.evaluate(model, epoch + 1, _Hooks(self))
        super().on_epoch_end(epoch, logs)


def fit(
    args: Namespace,
    model: keras.Model,
    train_batches,
    validation: Validation,
    watched: list[keras.callbacks.Callback],
    loaded: snapshots.Loaded | None,
    *,
    epochs: int,
    finish: Finish | None = None,
    **keeping,
) -> saving.Snapshots:
    """`model.fit` that begins where a snapshot is, also within an epoch, and writes snapshots.

    Args:
        args: Resolved arguments.
        model: A compiled model.
        train_batches: A `BatchSequence`.
        validation: What the epochs are judged by.
        watched: The callbacks besides that of the snapshots.
        loaded: The snapshot that is continued, or `None`.
        epochs: Epochs of the whole training.
        finish: What the last of them are trained on and judged by instead.
        **keeping: For `saving.Snapshots`.

    Returns:
        What wrote the snapshots, and knows how long the training took.

    Raises:
        UserError: The snapshot is of other data, the loss is no longer finite, or the device's
            memory is too small.
        Interrupted: A signal asked for the end.
    """
    steps = len(train_batches)
    progress = saving.Snapshots(args, watched, steps_per_epoch=steps, loaded=loaded, **keeping)
    if loaded:
        saving.restore(model, loaded, progress.data, args.snapshot)
    together = _Callbacks(
        [memory.KeepFreed(), *watched, progress],
        model=model,
        add_history=True,
        epochs=epochs,
        steps=steps,
    )
    together.validation = validation
    first = train_batches, validation.batches

    def batches_of(epoch: int):
        batches, judging = first
        if finish and epoch >= finish.begins:
            batches, judging = finish.batches.train, finish.batches.validation
            model.info |= finish.facts
        together.batches, validation.batches = batches, judging
        return batches

    # The batches come shuffled, by seed and epoch.
    options = {"callbacks": together, "shuffle": False, "verbose": 0}
    epoch, batch = progress.epoch, progress.batch
    try:
        if batch or keras.backend.backend() == "tensorflow":
            # TensorFlow traces a step twice if variables are made in it.
            prepare(model)
        batches = batches_of(epoch)
        if 0 < batch < steps:
            batches.start_at(epoch, batch)
            together.first_step = batch
            model.fit(batches, initial_epoch=epoch, epochs=epoch + 1, **options)
            together.first_step = 0
        elif batch:
            _end_epoch(model, epoch, steps, together)
        epoch += bool(batch)
        # Keras fixes the size of the images when `fit` begins.
        ends = [finish.begins] if finish and epoch < finish.begins else []
        for end in [*ends, epochs]:
            batches = batches_of(epoch)
            batches.start_at(epoch, 0)
            model.fit(batches, initial_epoch=epoch, epochs=end, **options)
            epoch = end
    except callbacks.Diverged as error:
        raise UserError(f"{error}{progress.advice_after_divergence}") from None
    except Exception as error:
        if _is_out_of_memory(error):
            raise UserError(_out_of_memory(args)) from None
        raise
    return progress


def _is_out_of_memory(error: Exception) -> bool:
    # The backends have classes of their own for it, which must not be imported here.
    name, text = type(error).__name__, str(error)
    return (
        isinstance(error, MemoryError)
        or name == "ResourceExhaustedError"
        or "RESOURCE_EXHAUSTED" in text
    )


def _out_of_memory(args: Namespace) -> str:
    parts = args.accumulate_steps
    in_parts = f" in {parts} parts" if parts > 1 else ""
    side = max(args.image_size, args.finish_size or 0)
    return (
        f"out of memory: --batch_size {args.batch_size}{in_parts} (in the evaluation "
        f"--val_batch_size {args.val_batch_size}) with images of {side} x "
        f"{side} pixels in {args.precision} is too much for the device; "
        f"--accumulate_steps {2 * parts} computes the same batch in {2 * parts} parts, "
        "--precision mixed_bfloat16 takes about half; nothing was changed by itself"
    )


def prepare(model: keras.Model) -> None:
    """Makes the optimiser's and the metrics' variables, which Keras may do in the first step."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    outputs = keras.tree.map_structure(
        lambda output: ops.ones((1, *output.shape[1:]), output.dtype), model.output
    )
    labels = keras.tree.map_structure(lambda _: ops.zeros((1,), "int32"), outputs)
    model.compute_loss(y=labels, y_pred=outputs)
    model.compute_metrics(None, labels, outputs)


def _end_epoch(model, epoch, steps, together):
    """The rest of an epoch whose steps are all done: its evaluation."""
    together.on_train_begin()
    model.reset_metrics()
    together.on_epoch_begin(epoch)
    for callback in together.callbacks:
        if isinstance(callback, callbacks.LearningRate):
            callback.on_train_batch_begin(steps - 1)  # the rate that the steps ended with
    logs = {name: float(value) for name, value in model.get_metrics_result().items()}
    together.on_epoch_end(epoch, logs)
    together.on_train_end()
