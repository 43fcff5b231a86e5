"""Fitting a model: `model.fit` that begins where a snapshot is, and explains what stopped it."""

from argparse import Namespace

import keras
from keras import ops

from training.learning import callbacks
from training.resuming.saving import Snapshots
from utils import UserError


class _Callbacks(keras.callbacks.CallbackList):
    """Callbacks that see the steps of an epoch counted from its start, not from a resumption.

    They also tell the batches which epoch begins: Keras looks at the first batches before it,
    with or without an epoch's begin and end around that, by backend and strategy.
    """

    first_step = 0
    batches = None

    def on_epoch_begin(self, epoch, logs=None):
        if self.batches is not None:
            self.batches.start_at(epoch, self.first_step)
        super().on_epoch_begin(epoch, logs)

    def on_train_batch_begin(self, batch, logs=None):
        super().on_train_batch_begin(batch + self.first_step, logs)

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch + self.first_step, logs)


def fit(
    model: keras.Model,
    train_batches,
    test_batches,
    *,
    epochs: int,
    progress: Snapshots,
    verbose: int = 0,
) -> None:
    """`model.fit` that begins where a snapshot is, also within an epoch.

    Args:
        model: A compiled model, in the snapshot's state (`restore`).
        train_batches: A `BatchSequence`.
        test_batches: The batches to evaluate on after every epoch.
        epochs: Epochs of the whole training.
        progress: The callback that knows where to begin, and the others.
        verbose: As in `model.fit`.

    Raises:
        UserError: The loss is no longer finite, or the device's memory is too small.
        Interrupted: A signal asked for the end.
    """
    steps = len(train_batches)
    together = _Callbacks(
        [*progress.watched, progress],
        model=model,
        add_history=True,
        add_progbar=verbose != 0,
        verbose=verbose,
        epochs=epochs,
        steps=steps,
    )
    together.batches = train_batches
    # The batches come shuffled, by seed and epoch.
    options = {"callbacks": together, "shuffle": False, "verbose": verbose}
    options["validation_data"] = test_batches
    epoch, batch = progress.epoch, progress.batch
    try:
        if batch:
            _build_metrics(model)
        if 0 < batch < steps:
            train_batches.start_at(epoch, batch)
            together.first_step = batch
            model.fit(train_batches, initial_epoch=epoch, epochs=epoch + 1, **options)
            together.first_step = 0
        elif batch:
            _evaluate_epoch(model, test_batches, epoch, steps, together, verbose)
        epoch += bool(batch)
        train_batches.start_at(epoch, 0)
        model.fit(train_batches, initial_epoch=epoch, epochs=epochs, **options)
    except callbacks.Diverged as error:
        raise UserError(f"{error}{progress.advice_after_divergence}") from None
    except Exception as error:
        if _is_out_of_memory(error):
            raise UserError(_out_of_memory(progress.args)) from None
        raise


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
    return (
        f"out of memory: --batch_size {args.batch_size}{in_parts} (in the evaluation "
        f"--val_batch_size {args.val_batch_size}) with images of {args.image_size} x "
        f"{args.image_size} pixels in {args.precision} is too much for the device; "
        f"--accumulate_steps {2 * parts} computes the same batch in {2 * parts} parts, "
        "--precision mixed_bfloat16 takes about half; nothing was changed by itself"
    )


def _build_metrics(model):
    """Makes the metrics' variables, which Keras does in the first step only."""
    outputs = keras.tree.map_structure(
        lambda output: ops.ones((1, *output.shape[1:]), output.dtype), model.output
    )
    labels = keras.tree.map_structure(lambda _: ops.zeros((1,), "int32"), outputs)
    model.compute_loss(y=labels, y_pred=outputs)
    model.compute_metrics(None, labels, outputs)


def _evaluate_epoch(model, test_batches, epoch, steps, together, verbose):
    """The rest of an epoch whose steps are all done."""
    together.on_train_begin()
    model.reset_metrics()
    together.on_epoch_begin(epoch)
    for callback in together.callbacks:
        if isinstance(callback, callbacks.LearningRate):
            callback.on_train_batch_begin(steps - 1)  # the rate that the steps ended with
    logs = {name: float(value) for name, value in model.get_metrics_result().items()}
    scores = model.evaluate(test_batches, callbacks=together, return_dict=True, verbose=verbose)
    together.on_epoch_end(epoch, logs | {f"val_{name}": value for name, value in scores.items()})
    together.on_train_end()
