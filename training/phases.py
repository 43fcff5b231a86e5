"""The phases of a training: new layers alone where weights were loaded, then the whole network."""

from argparse import Namespace
from collections.abc import Sequence

import keras

from training import finetuning, fitting
from training.data import Batches
from training.resuming import saving, snapshots
from training.starting import Session


def train(
    args: Namespace,
    model: keras.Model,
    dataset,
    batches: Batches,
    validation: fitting.Validation,
    watched: Sequence[keras.callbacks.Callback],
    session: Session,
) -> saving.Snapshots:
    """Trains from the beginning, or from the snapshot that is continued, to the end.

    Args:
        args: Resolved arguments.
        model: The compiled network.
        dataset: What it is trained on.
        batches: Made of that.
        validation: What the epochs are judged by.
        watched: Callbacks of the training of the whole network.
        session: What the training runs in.

    Returns:
        What wrote the snapshots, and knows how long the training took.

    Raises:
        UserError: The snapshot is of other data, the loss diverged, or memory was too small.
        Interrupted: A signal asked for the end.
    """
    watched = list(watched)
    if args.snapshot_best:
        watched.append(saving.BestModel(f"{args.snapshot}.best.keras", args.snapshot_best))
    keeping = {"stop": session.stop, "data": saving.describe_data(dataset, model)}
    session.check_same_data(keeping["data"])
    loaded, seconds = session.loaded, 0.0
    with session.stop.deferred():
        if args.finetune and not (loaded and loaded.snapshot.phase == snapshots.ALL_LAYERS):
            seconds = finetuning.train_new_layers(
                args, model, batches, validation, loaded, **keeping
            )
            loaded = None
        return fitting.fit(
            args,
            model,
            batches.train,
            validation,
            watched,
            loaded,
            epochs=args.epochs,
            finish=batches.finish,
            seconds_before=seconds,
            **keeping,
        )
