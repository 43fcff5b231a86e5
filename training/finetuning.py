"""Fine-tuning: weights of another training by layer name, and the new layers trained first."""

import contextlib
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np

import sgdr
from foreign_files import load_weights as read_weights
from models import EmbeddingOutput
from training import fitting
from training.data import Batches
from training.learning import callbacks
from training.learning.losses import compile_model
from training.reporting import epochs
from training.resuming import saving, snapshot_schema
from utils import UserError


@dataclass
class Matches:
    """What a weight file had for a network, in numbers of tensors.

    Attributes:
        loaded: Taken over.
        skipped: Of another shape in the file.
        missing: Not in the file.
        new_layers: Names of the layers that keep their initial weights.
    """

    loaded: int = 0
    skipped: int = 0
    missing: int = 0
    new_layers: list[str] = field(default_factory=list)


def load_weights(model: keras.Model, path: str) -> Matches:
    """Loads weights by layer name; a layer whose shapes differ is left as it is.

    Batch normalisation counts its steps anew where the file has no count (Keras 2), so that its
    averages are those of the new images from the first step on.

    Args:
        model: The network. Its class embeddings are kept.
        path: `.keras` or `.weights.h5` of this program, or a Keras 2 HDF5 file of weights or of a
            whole model.

    Raises:
        UserError: The file cannot be read or is hostile, or no layer of the network is in it.
    """
    matches = Matches()
    layers = read_weights(path)[0]
    for layer in model.layers:
        if layer.weights and not isinstance(layer, EmbeddingOutput):
            _load_layer(layer, layers.get(layer.name), path, matches)
    if not matches.loaded:
        names = ", ".join(sorted(layers)[:5]) or "none"
        raise UserError(
            f"--finetune {path}: nothing in it fits the network {model.name}: "
            f"{matches.skipped} tensors are of another shape, {matches.missing} are missing; "
            f"its layers are {names}, …"
        )
    return matches


@contextlib.contextmanager
def only_trainable(model: keras.Model, names: Sequence[str]) -> Iterator[None]:
    """Freezes all layers but those named; compile the model within and again afterwards."""
    before = [layer.trainable for layer in model.layers]
    for layer in model.layers:
        layer.trainable = layer.name in names
    try:
        yield
    finally:
        for layer, trainable in zip(model.layers, before, strict=True):
            layer.trainable = trainable


def _load_layer(layer, arrays: list[np.ndarray] | None, path: str, matches: Matches) -> None:
    if not arrays:
        matches.missing += len(layer.weights)
        matches.new_layers.append(layer.name)
        return
    # Our batch normalisation has a counter besides its weights, which Keras 2 files lack.
    complete = len(arrays) == len(layer.variables)
    variables = layer.variables if complete else layer.weights
    if [tuple(v.shape) for v in variables] != [array.shape for array in arrays]:
        matches.skipped += len(layer.weights)
        matches.new_layers.append(layer.name)
        return
    if not all(np.isfinite(array).all() for array in arrays):
        raise UserError(
            f"--finetune {path}: the weights of layer {layer.name} are not all finite numbers"
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    matches.loaded += len(layer.weights)


def train_new_layers(args: Namespace, model, batches: Batches, loaded, **options) -> float:
    """The first part of fine-tuning: what has no weights yet is trained alone.

    Args:
        args: Resolved arguments.
        model: The network, with new weights.
        batches: Of the training and of the validation images.
        loaded: The snapshot of this part that is continued, or `None`.
        **options: For `saving.Snapshots`.

    Returns:
        The seconds it took.
    """
    if loaded:
        new_layers = loaded.snapshot.new_layers
    else:
        matches = load_weights(model, args.finetune)
        new_layers = matches.new_layers
        print(
            f"fine-tuning {args.finetune}: {matches.loaded} tensors loaded, {matches.skipped} "
            f"skipped as their shapes differ, {matches.missing} missing; "
            f"new layers: {', '.join(new_layers) or 'none'}",
            flush=True,
        )
    if not new_layers or not args.finetune_init:
        return 0.0
    show_bar = epochs.shows_bar(args)
    history = epochs.EpochReport(
        batches.images_per_epoch,
        args.finetune_init,
        None,
        print_line=not show_bar,
        title="New layers",
    )
    schedule = sgdr.Schedule(args.finetune_init, lambda position: args.sgd_lr)
    steps = len(batches.train)
    watched = [callbacks.LearningRate(schedule, steps), callbacks.StopOnDivergence(), history]
    with only_trainable(model, new_layers):
        compile_model(args, model)
        progress = saving.Snapshots(
            args,
            watched,
            steps_per_epoch=steps,
            loaded=loaded,
            phase=snapshot_schema.NEW_LAYERS,
            new_layers=new_layers,
            **options,
        )
        if loaded:
            saving.restore(model, loaded, progress.data, args.snapshot)
        fitting.fit(
            model,
            batches.train,
            batches.validation,
            epochs=args.finetune_init,
            progress=progress,
            verbose=int(show_bar),
        )
    compile_model(args, model)
    return progress.seconds
