"""Dumped models and weights: written whole, and read back if they are what they should be."""

import contextlib
import io
import os
import zipfile
from collections.abc import Iterator

import keras
import numpy as np

from models import calibration, model_files
from models.classifier import ImageClassifier
from utils import UserError, atomic_path


def save_model(model: ImageClassifier, path: str | os.PathLike) -> None:
    """Writes a `.keras` file that is complete in itself."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(_archive(model).getvalue())


def save_weights(model: ImageClassifier, path: str | os.PathLike) -> None:
    """Writes the weights alone, as a `.weights.h5` file."""
    with atomic_path(path) as temporary, zipfile.ZipFile(_archive(model)) as archive:
        temporary.write_bytes(archive.read("model.weights.h5"))


class _Memory(io.BytesIO):
    """A file in memory; Keras chooses the format by the name."""

    def __str__(self):
        return "memory.keras"


def _archive(model: ImageClassifier) -> io.BytesIO:
    """What a `.keras` file holds, which has the weights as a `.weights.h5` file has them.

    The HDF5 library ends the program when it writes to a disk that is full.
    """
    archive = _Memory()
    with in_this_process():
        _uncompiled(model).save(archive)
    return archive


@contextlib.contextmanager
def in_this_process() -> Iterator[None]:
    """Within it nothing waits for other processes, which do not write.

    Keras makes variables to save a model, and several processes make them together.
    """
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def _uncompiled(model: ImageClassifier) -> ImageClassifier:
    """The same layers in a model without the optimiser's and the metrics' state.

    With that state a file is nearly twice as large.
    """
    return ImageClassifier(
        model.input,
        model.output,
        class_names=model.class_names,
        class_ids=model.class_ids,
        info=model.info,
        name=model.name,
    )


def load_model(path: str | os.PathLike) -> ImageClassifier:
    """Reads a model that `save_model` wrote; nothing in the file is run.

    Raises:
        UserError: The file cannot be read, or holds no image classifier.
    """
    try:
        model = model_files.read_model(path)
        _check_classes(model)
    except UserError:
        raise
    except Exception as error:  # Keras raises nearly anything for a damaged file
        reason = model_files.reason(error)
        raise UserError(f"{path}: not a model that can be read ({reason})") from None
    return model


def keep_temperature(model: ImageClassifier, path: str | os.PathLike) -> None:
    """Takes over the temperature of a dump of the same weights, which is about to be replaced.

    So a finished run that is started again keeps what was fitted for it meanwhile.
    """
    try:
        with in_this_process():
            other = load_model(path)
    except UserError:
        return
    weights = zip(other.get_weights(), model.get_weights(), strict=False)
    if len(other.weights) == len(model.weights) and all(np.array_equal(a, b) for a, b in weights):
        model.temperature = other.temperature


def _check_classes(model: ImageClassifier) -> None:
    """Refuses outputs, class embeddings, names, ids and a temperature that do not agree."""
    names, ids, head = model.class_names, model.class_ids, model.embedding_head
    outputs = model.named_outputs(model.output)
    widths = {name: output.shape[1:] for name, output in outputs.items()}
    known = ({"prob"},) if head is None else ({"embedding"}, {"embedding", "prob"})
    if widths.keys() not in known:
        raise ValueError(f"its outputs are {', '.join(map(str, widths)) or 'none'}")
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError("it does not name its classes")
    if len(ids) not in (0, len(names)) or not all(isinstance(i, int | str) for i in ids):
        raise ValueError(f"it has {len(ids)} class ids for {len(names)} classes")
    if widths.get("prob", (len(names),)) != (len(names),):
        raise ValueError(f"it gives probabilities of shape {widths['prob']} for {len(names)} names")
    if model.temperature is not None and not calibration.is_temperature(model.temperature):
        raise ValueError(f"its temperature is {str(model.temperature)[:50]}")
    if head and head.class_embeddings.shape != (len(names), *widths["embedding"]):
        raise ValueError(
            f"it has class embeddings of shape {tuple(head.class_embeddings.shape)} for "
            f"{len(names)} classes and embeddings of shape {widths['embedding']}"
        )
