"""What images were labelled as: lines for people, CSV and JSON for programs."""

import csv
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TextIO

import numpy as np

from utils import printable, say

UNKNOWN = "unknown"


class Label(NamedTuple):
    """A class that an image may be of.

    Attributes:
        name: Of the class, or `UNKNOWN`.
        score: `None` for `UNKNOWN`.
    """

    name: str
    score: float | None


def _encodable(name: str) -> str:
    """A name without the halves of characters that a foreign model can have in one."""
    return name.encode("utf-8", "backslashreplace").decode()


Row = tuple[str | os.PathLike, Sequence[Label]]


def best_labels(
    scores: np.ndarray, class_names: Sequence[str], count: int, least: float | None = None
) -> list[Label]:
    """The best classes of an image, the best one first.

    Args:
        scores: `(C,)`.
        class_names: Names of the C classes.
        count: How many to give.
        least: `UNKNOWN` is the best one where all scores are below this.
    """
    order = np.argsort(-scores, kind="stable")[:count]
    labels = [Label(_encodable(class_names[i]), float(scores[i])) for i in order]
    if least is not None and not scores.max() >= least:
        labels = [Label(UNKNOWN, None), *labels]
    return labels[:count]


def write_lines(rows: Iterable[Row], file: TextIO | None = None) -> None:
    """A line for each image: its path and its labels, separated by tabs, each as it comes."""
    for path, labels in rows:
        cells = [f"{name}: {score:.4f}" if score is not None else name for name, score in labels]
        say(path, *cells, sep="\t", file=file)


def write_csv(rows: Iterable[Row], file: TextIO, count: int) -> None:
    """A table with the columns `path,class,score`, then `class_2,score_2` and so on.

    Args:
        rows: The images.
        file: A terminal is spared what it would obey; all else gets names as they are.
        count: Labels of an image.
    """
    shown: Callable[[str], str] = printable if file.isatty() else str
    writer = csv.writer(file, lineterminator="\n")
    more = [f"{what}_{i}" for i in range(2, count + 1) for what in ("class", "score")]
    writer.writerow(["path", "class", "score", *more])
    for path, labels in rows:
        cells = [
            cell
            for name, score in labels
            for cell in (shown(name), "" if score is None else f"{score:.6f}")
        ]
        writer.writerow([shown(os.fspath(path)), *cells])


def write_json(rows: Iterable[Row], file: TextIO) -> None:
    """A list of objects with `path`, `class`, `score` and `next_best`, one object a line."""
    file.write("[")
    for number, (path, labels) in enumerate(rows):
        item = {"path": os.fspath(path), **as_json(labels)}
        file.write(f"{',' if number else ''}\n{json.dumps(item, allow_nan=False)}")
    file.write("\n]\n")


def as_json(labels: Sequence[Label]) -> dict[str, Any]:
    """The labels of an image as a JSON object."""
    best, *others = (
        # JSON has no number for what a diverged model gives.
        {"class": name, "score": score if score is None or math.isfinite(score) else None}
        for name, score in labels
    )
    return best | {"next_best": others}
