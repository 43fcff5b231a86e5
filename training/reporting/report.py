"""What a run leaves behind: result.json, the feature dump, and the facts both state."""

import json
import os
import platform
from argparse import Namespace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from datasets.batches.parallel import num_cores
from training.devices.distribution import Distribution
from utils import atomic_path


def describe_device() -> str:
    """The device that Keras computes on, in words, as in `NVIDIA H100` or `CPU, 8 cores`."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        for gpu in tf.config.list_physical_devices("GPU"):
            return tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
    elif keras.backend.backend() == "jax":
        import jax

        if jax.devices()[0].platform != "cpu":
            return jax.devices()[0].device_kind
    return f"CPU, {num_cores()} cores ({platform.machine()})"


def describe_devices(devices: Distribution) -> str:
    """The devices of a training in words, as in `NVIDIA H100` or `4 x NVIDIA H100, …`."""
    if devices.replicas == 1:
        return describe_device()
    simulated = devices.devices[0].startswith("cpu")
    what = f"simulated devices of {describe_device()}" if simulated else describe_device()
    return f"{devices.replicas} x {what}; gradients: {devices.reduction}"


def versions() -> dict[str, str]:
    """The versions of Python, Keras, its backend and NumPy."""
    backend = keras.backend.backend()
    found = {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": backend,
        backend: __import__(backend).__version__,
        "numpy": np.__version__,
    }
    return found


def count_parameters(model: keras.Model) -> dict[str, int]:
    """Numbers of trainable and of other weights (running averages, class embeddings)."""

    def count(weights):
        return int(sum(np.prod(weight.shape) for weight in weights))

    return {
        "trainable": count(model.trainable_weights),
        "non_trainable": count(model.non_trainable_weights),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of equal or different keys as an aligned text table; numbers have four decimals."""
    columns = list(dict.fromkeys(key for row in rows for key in row))

    def cell(value):
        return f"{value:.4f}" if isinstance(value, float) else str(value)

    lines = [columns, *([cell(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Writes JSON whole or not at all; numbers that JSON lacks (NaN, infinity) raise."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def final_lines(scores: dict[str, float], best: dict[str, float]) -> str:
    """The last lines of a training's output.

    Args:
        scores: Of the final weights, by name.
        best: The row of the best epoch.
    """
    accuracy = "val_prob_acc" if "val_prob_acc" in best else "val_acc"
    return "\n".join(
        [
            "Final: " + " - ".join(f"{name}: {value:.4f}" for name, value in scores.items()),
            f"Best epoch: {best['epoch']} with {accuracy}: {best[accuracy]:.4f} "
            "(the paper's protocol, which selects on the test images)",
            f"Average Accuracy: {scores['average_acc']:.4f}",
        ]
    )


def write_result(
    args: Namespace,
    model: keras.Model,
    dataset,
    scores: dict[str, float],
    best: dict[str, float],
    wall_seconds: float,
    devices: Distribution,
) -> None:
    """Writes `result.json`: everything needed to know what a run was and what came of it.

    Args:
        args: The resolved arguments; the file goes to their `log_dir`.
        model: The trained model.
        dataset: The data set it was trained on.
        scores: Of the final weights, by name.
        best: The row of the best epoch.
        wall_seconds: Time of the training and its evaluations, over all its resumptions.
        devices: What it was trained on.
    """
    write_json(
        Path(args.log_dir) / "result.json",
        {
            "arguments": vars(args),
            "seed": args.seed,
            "dataset": dataset.counts(),
            "parameters": count_parameters(model),
            "device": describe_device(),
            "distribution": devices.describe(args.bn_groups),
            "versions": versions(),
            "final": scores,
            "best": best,
            "wall_seconds": wall_seconds,
        },
    )


def write_features(path: str, evaluation, dataset) -> None:
    """Writes the test set's features as an `.npz` that holds no pickles.

    Its arrays: `features` (images, dimensions) float32, `labels` (images,) class indices,
    `class_names` (classes,) and `class_ids` (classes,).
    """
    with atomic_path(path) as temporary:
        np.savez(
            temporary,
            features=np.asarray(evaluation.features, "float32"),
            labels=evaluation.labels,
            class_names=np.array(dataset.class_names, dtype=np.str_),
            class_ids=np.array(dataset.class_ids),
        )
