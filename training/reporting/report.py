"""What a run leaves behind: result.json, the feature dump, and the facts both state."""

import contextlib
import csv
import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from datasets.batches.parallel import num_cores
from training.devices.distribution import Distribution
from training.reporting.evaluation import Evaluation
from training.reporting.flags import keeps_something
from utils import UserError, atomic_path, counted

NOTHING_KEPT = (
    "nothing of this run will be kept: --output DIR keeps its log, its model and a snapshot to "
    "resume from"
)
# The shortest training of the README, which learns digits, has 720.
_FEW_STEPS = 200
STARTED = datetime.datetime.now().astimezone()


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


def describe_run(args: Namespace, dataset, model: keras.Model, devices: Distribution) -> str:
    """The first lines of a training's output: the data, the network and the devices."""
    images = len(dataset.train)
    kept = "" if keeps_something(args) else f"\n{NOTHING_KEPT}"
    advice = few_steps(args, images * dataset.train_repeats)
    held_out = f"{len(dataset.validation)} validation and " if dataset.validation else ""
    return (
        f"{dataset.name}: {images} training images, {images * dataset.train_repeats} per epoch, "
        f"{held_out}{len(dataset.test)} test images, {len(dataset.class_names)} classes\n"
        f"{args.architecture}: {count_parameters(model)['trainable']:,} trainable parameters, "
        f"on {describe_devices(devices)}{kept}" + (f"\n{advice}" if advice else "")
    )


def few_steps(args: Namespace, images_per_epoch: int) -> str | None:
    """Says if a training from scratch is hardly long enough to learn something; else `None`."""
    steps = args.epochs * -(-images_per_epoch // args.batch_size)
    if steps >= _FEW_STEPS or args.finetune:
        return None
    longer = "--images_seen" if args.images_seen else "--epochs"
    return (
        f"only {counted(steps, 'step')} in all, where learning from scratch takes hundreds or "
        f"thousands: more {longer}, or a smaller --batch_size, makes more"
    )


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
        if isinstance(value, list):
            return " to ".join(map(cell, value))
        return f"{value:.4f}" if isinstance(value, float) else str(value)

    lines = [columns, *([cell(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


@contextlib.contextmanager
def all_written(
    snapshot: str | None = None,
) -> Iterator[Callable[[str], AbstractContextManager[None]]]:
    """Within it a file that cannot be written, as on a full disk, keeps no other from being so.

    Args:
        snapshot: What repeating the command would go on from, if there is such a file.

    Yields:
        A context for the writing of each file, which takes the flag that asks for it.

    Raises:
        UserError: At the end, if there was such a file.
    """
    failures = []

    @contextlib.contextmanager
    def written(flag: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            failures.append(f"{flag} {error.filename}: {error.strerror or error}")

    yield written
    if failures:
        again = ""
        if snapshot and os.path.exists(snapshot):
            again = (
                "; make room or give another path, and repeat the command: it goes on from "
                f"--snapshot {snapshot} and writes them"
            )
        failed = "; ".join(failures)
        raise UserError(f"{failed}: not written; all else that was asked for is{again}")


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Writes JSON whole or not at all; numbers that JSON lacks (NaN, infinity) raise."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def selected_on(args: Namespace) -> str:
    """The images that every `val_…` of a training is of, and thus whatever is chosen by them."""
    return "validation" if args.validation_fraction or args.fold else "test"


def test_scores(result: Evaluation) -> dict[str, Any]:
    """What the final weights reach on the test images, with `n` and a 95 % interval."""
    uncertainty = result.uncertainty()
    return {
        "test_acc": result.scores["acc"],
        "test_average_acc": result.scores["average_acc"],
        "test_acc_interval": uncertainty["acc_interval"],
        "n": uncertainty["n"],
    }


def final_lines(
    result: Evaluation,
    best: dict[str, float],
    selected: str,
    others: Mapping[str, Evaluation] | None = None,
) -> str:
    """The last lines of a training's output.

    Args:
        result: Of the final weights, on the test images.
        best: The row of the best epoch.
        selected: As `selected_on` says.
        others: Further evaluations on the test images, by what they are of, as `without_tta`.
    """
    accuracy = "val_prob_acc" if "val_prob_acc" in best else "val_acc"
    protocol = "of the validation images, which were kept out of the training"
    if selected == "test":
        protocol = "the paper's protocol, which selects on the test images"
    return "\n".join(
        [
            "Final: " + " - ".join(f"{name}: {value:.4f}" for name, value in result.scores.items()),
            f"Best epoch: {best['epoch']} with {accuracy}: {best[accuracy]:.4f} ({protocol})",
            *(_test_line(f"Test {name}", other) for name, other in (others or {}).items()),
            _test_line("Test", result),
            f"selected on: {selected}",
            f"Average Accuracy: {result.scores['average_acc']:.4f}",
        ]
    )


def _test_line(title: str, result: Evaluation) -> str:
    test = test_scores(result)
    low, high = test["test_acc_interval"]
    return (
        f"{title.replace('_', ' ')}: test_acc: {test['test_acc']:.4f} (95 % interval {low:.4f} to "
        f"{high:.4f}, n = {test['n']}) - test_average_acc: {test['test_average_acc']:.4f}"
    )


def write_result(
    args: Namespace,
    model: keras.Model,
    dataset,
    result: Evaluation,
    best: dict[str, float],
    wall_seconds: float,
    devices: Distribution,
    others: Mapping[str, Evaluation] | None = None,
) -> None:
    """Writes `result.json`: everything needed to know what a run was and what came of it.

    Args:
        args: The resolved arguments; the file goes to their `log_dir`.
        model: The trained model.
        dataset: The data set it was trained on.
        result: Of the final weights, on the test images.
        best: The row of the best epoch.
        wall_seconds: Time of the training and its evaluations, over all its resumptions.
        devices: What it was trained on.
        others: Further evaluations, as for `final_lines`.
    """
    write_json(
        Path(args.log_dir) / "result.json",
        {
            "command": shlex.join(["python", *sys.argv]),
            "started": STARTED.isoformat(timespec="seconds"),
            "code_version": code_version(),
            "arguments": vars(args),
            "seed": args.seed,
            "dataset": dataset.counts(),
            "parameters": count_parameters(model),
            "device": describe_device(),
            "distribution": devices.describe(args.bn_groups),
            "versions": versions(),
            "selected_on": selected_on(args),
            "final": result.scores,
            "test": test_scores(result),
            **{f"test_{name}": test_scores(other) for name, other in (others or {}).items()},
            "best": best,
            "wall_seconds": wall_seconds,
        },
    )


def code_version() -> str:
    """The commit that the program is of, with `+` where files were changed since."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        done = subprocess.run([*command, "--abbrev=12"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"  # outside a checkout


def write_predictions(
    path: str | os.PathLike, names: Sequence[str], result: Evaluation, classes: Sequence[str]
) -> None:
    """Writes a CSV with a row per image: what it is, and the best five classes with their scores.

    Args:
        path: The file.
        names: Of the images, in the order of the result's labels.
        result: The scores of all classes.
        classes: Their names.
    """
    count = min(5, len(classes))
    order = np.argsort(-result.class_scores, axis=1, kind="stable")[:, :count]
    scores = np.take_along_axis(result.class_scores, order, axis=1)
    header = ["path", "true", "predicted", "score"]
    header += [f"{what}_{i}" for i in range(2, count + 1) for what in ("class", "score")]
    with (
        atomic_path(path) as temporary,
        # Names of files need not be UTF-8.
        open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for name, label, best, values in zip(names, result.labels, order, scores, strict=True):
            pairs = zip(best, values, strict=True)
            cells = [cell for i, value in pairs for cell in (classes[i], f"{value:.6f}")]
            writer.writerow([name, classes[label], *cells])


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
