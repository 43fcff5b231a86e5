"""Exported models, computed by the runtime of their format; only that of a SavedModel is Keras'."""

import importlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

import foreign_files
from deployment.facts import NAME, Facts
from deployment.quiet import quiet
from utils import UserError

# What the runtimes may use.
_THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


class Exported:
    """An exported model, which takes images as `models.ImageClassifier` does.

    Args:
        facts: What the file says of itself.
        run: Gives the outputs by name, for images `(n, S, S, 3)`, uint8.
    """

    def __init__(self, facts: Facts, run: Callable[[np.ndarray], dict[str, np.ndarray]]):
        self.facts, self.outputs = facts, run
        self.class_names, self.class_ids = facts.class_names, facts.class_ids
        self.scores_are_probabilities = facts.probabilities
        self.view = facts.view

    def batch_scores(self, images: np.ndarray) -> np.ndarray:
        """The scores `(n, C)` of images `(n, S, S, 3)` that the view gave."""
        scores = self.outputs(np.ascontiguousarray(images))["scores"]
        if scores.shape != (len(images), len(self.class_names)):
            raise ValueError(
                f"the model gives scores of shape {scores.shape} for {len(images)} images and "
                f"{len(self.class_names)} classes"
            )
        return scores


def read_exported(path: str | os.PathLike) -> Exported:
    """Reads a file that `export_model.py` wrote, or the folder of a SavedModel.

    Raises:
        UserError: The runtime is not installed or cannot read it, or it is another program's.
    """
    suffix = Path(path).suffix
    read = {".onnx": _read_onnx, ".tflite": _read_litert}.get(suffix, _read_saved_model)
    try:
        model = read(path)
        # What cannot compute is found here; and runtimes tell of their start as they first compute.
        with quiet():
            side = model.view.image_size
            model.batch_scores(np.zeros((1, side, side, 3), np.uint8))
        return model
    except (UserError, ModuleNotFoundError):
        raise
    except Exception as error:  # the runtimes' own
        reason = (str(error).strip() or type(error).__name__).split("\n")[0][:300]
        raise UserError(f"{path}: cannot be read as an exported model ({reason})") from None


def needs(module: str):
    """A module of a package that not everyone needs.

    Raises:
        UserError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"the Python package {error.name} is not installed: pip install -r "
            "requirements-export.txt"
        ) from None


def _facts(text: str | None) -> Facts:
    if text is None:
        raise ValueError("it does not say which classes it knows; is it of export_model.py?")
    return Facts.from_json(text)


def _read_onnx(path) -> Exported:
    runtime = needs("onnxruntime")
    facts = _facts(foreign_files.try_model(path, "onnx_model", NAME))
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images):
        return dict(zip(names, session.run(names, {"image": images}), strict=True))

    return Exported(facts, run)


def _read_litert(path) -> Exported:
    runtime = needs("ai_edge_litert.interpreter")
    facts = _facts(foreign_files.try_model(path, "litert_model", f"{NAME}.json"))
    interpreter = runtime.Interpreter(os.fspath(path), num_threads=_THREADS)
    runner = interpreter.get_signature_runner("serving_default")
    return Exported(facts, lambda images: runner(image=images))


def _read_saved_model(path) -> Exported:
    facts = Path(path, "assets.extra", f"{NAME}.json")
    text = facts.read_text() if facts.is_file() else None
    import tensorflow as tf

    loaded = tf.saved_model.load(os.fspath(path))
    serve = loaded.signatures["serving_default"]

    def run(images):
        outputs = serve(image=tf.constant(images))
        return {name: output.numpy() for name, output in outputs.items()}

    run.keeps = loaded  # its variables live as long as it does
    return Exported(_facts(text), run)
