"""Fine-tuning: weights of another training by layer name, and the new layers trained first."""

import contextlib
import json
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np

import models
import sgdr
from foreign_files import load_weights as read_weights
from models import EmbeddingOutput, plain
from training import fitting
from training.data import Batches
from training.learning import callbacks
from training.learning.losses import compile_model
from training.reporting import epochs
from training.reporting.progress import progress_line
from training.resuming import snapshot_schema
from utils import UserError, printable

# What stands on the features, and is of no use for other classes.
_HEAD = frozenset({"embedding", "bn_prob", "prob"})


@dataclass
class Matches:
    """What a weight file had for a network, in numbers of tensors.

    Attributes:
        loaded: Taken over.
        skipped: Of another shape in the file.
        missing: Not in the file.
        other_head: Of layers that belong to other classes or class embeddings in the file.
        new_layers: Names of the layers that keep their initial weights.
        unused: Names of layers with weights in the file that the network has not.
        names_classes: Whether the file says which classes it is of.
    """

    loaded: int = 0
    skipped: int = 0
    missing: int = 0
    other_head: int = 0
    new_layers: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    names_classes: bool = False

    def describe(self, path: str) -> str:
        """What a user should know of it, in lines."""
        lines = [
            f"fine-tuning {path}: {self.loaded} tensors loaded, {self.skipped} skipped as their "
            f"shapes differ, {self.missing} missing; new layers: "
            f"{', '.join(self.new_layers) or 'none'}"
        ]
        if self.other_head:
            lines.append("it is of other classes or class embeddings, so the head is new")
        elif not self.names_classes and not _HEAD.intersection(self.new_layers):
            lines.append("it does not name its classes; its head is taken over, as its shape fits")
        if self.unused:
            more = f" and {len(self.unused) - 10} more" if len(self.unused) > 10 else ""
            lines.append(f"not used of it: {printable(', '.join(self.unused[:10]))}{more}")
        return "\n".join(lines)


def load_weights(model: keras.Model, path: str) -> Matches:
    """Loads weights by layer name; a layer whose shapes differ is left as it is.

    So is the head if the file is known to be of other classes, by their names or their order, or
    of other class embeddings: as many outputs are not the same outputs.

    Batch normalisation counts its steps anew where the file has no count (Keras 2), so that its
    averages are those of the new images from the first step on.

    Args:
        model: The network. Its class embeddings are kept.
        path: `.keras` or `.weights.h5` of this program, or a Keras 2 HDF5 file of weights or of a
            whole model.

    Raises:
        UserError: The file cannot be read or is hostile, or no layer of the network is in it.
    """
    layers, config = read_weights(path)
    if model.name == "simple":
        layers = plain.current_names(layers)
    known = _class_names(config)
    matches = Matches(names_classes=known is not None)
    other_head = known not in (None, model.class_names) or _other_embeddings(model, layers, known)
    own = [layer for layer in model.layers if layer.weights]
    for layer in own:
        if isinstance(layer, EmbeddingOutput):
            continue
        if other_head and layer.name in _HEAD and layer.name in layers:
            matches.other_head += len(layer.weights)
            matches.new_layers.append(layer.name)
        else:
            _load_layer(layer, layers.get(layer.name), path, matches)
    names = {"head", *(layer.name for layer in own)}
    matches.unused = [name for name, arrays in layers.items() if arrays and name not in names]
    if not matches.loaded:
        names = ", ".join(sorted(layers)[:5]) or "none"
        raise UserError(
            f"--finetune {path}: nothing in it fits the network {model.name}: "
            f"{matches.skipped} tensors are of another shape, {matches.missing} are missing; "
            f"its layers are {names}, …"
        )
    return matches


def _class_names(config: str | None) -> tuple[str, ...] | None:
    """The names of the classes in the configuration of a `.keras` file."""
    try:
        return tuple(json.loads(config)["config"]["class_names"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _other_embeddings(model: models.ImageClassifier, layers: Mapping[str, list], known) -> bool:
    """Whether a file is known to have other class embeddings than a network, or only one has any.

    Files of Keras 2 name no classes and have no class embeddings; of which they are is not known.
    """
    own, [other] = model.class_embeddings, layers.get("head") or [None]
    if own is None or other is None:
        return own is not other and (known is not None or other is not None)
    return own.shape != other.shape or not np.allclose(own, other, rtol=0, atol=1e-5)


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


def train_new_layers(
    args: Namespace, model, batches: Batches, validation: fitting.Validation, loaded, **keeping
) -> float:
    """The first part of fine-tuning: what has no weights yet is trained alone.

    Args:
        args: Resolved arguments.
        model: The network, with new weights.
        batches: Of the training images.
        validation: What the epochs are judged by.
        loaded: The snapshot of this part that is continued, or `None`.
        **keeping: For `saving.Snapshots`.

    Returns:
        The seconds it took.
    """
    if loaded:
        new_layers = loaded.snapshot.new_layers
    else:
        matches = load_weights(model, args.finetune)
        new_layers = matches.new_layers
        print(matches.describe(args.finetune), flush=True)
    if not new_layers or not args.finetune_init:
        return 0.0
    history = epochs.EpochReport(
        batches.images_per_epoch, args.finetune_init, None, title="New layers"
    )
    schedule = sgdr.Schedule(args.finetune_init, lambda position: args.sgd_lr)
    steps = len(batches.train)
    watched = [
        callbacks.LearningRate(schedule, steps),
        callbacks.StopOnDivergence(),
        *progress_line(args, args.finetune_init, steps, title="New layers"),
        history,
    ]
    with only_trainable(model, new_layers):
        compile_model(args, model)
        progress = fitting.fit(
            args,
            model,
            batches.train,
            validation,
            watched,
            loaded,
            epochs=args.finetune_init,
            phase=snapshot_schema.NEW_LAYERS,
            new_layers=new_layers,
            **keeping,
        )
    compile_model(args, model)
    return progress.seconds
