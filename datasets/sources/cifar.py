"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) from the official "python version" pickles.

`CIFAR-100-a` has classes 0 to 49, `CIFAR-100-b` 50 to 99, which stay its class ids;
`CIFAR-100-b-consec` numbers the same classes from 0.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from datasets.info import Augmentation, Content, DatasetInfo, DatasetSpec, Samples
from datasets.sources.files import exists
from foreign_files import load_pickle
from utils import UserError

if TYPE_CHECKING:
    import numpy as np


def _described(value: np.ndarray | list[str]) -> str:
    """What was found in another array's place."""
    return f"{len(value)} texts" if isinstance(value, list) else f"{value.dtype} {value.shape}"


def _read_batch(path: Path, label_key: str, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images `(n, 32, 32, 3)` and labels `(n,)` of one file."""
    import numpy as np

    content = load_pickle(path)
    for key in ("data", label_key):
        if key not in content:
            raise UserError(
                f"{path}: has no array or list {key!r}; is it the official python version?"
            )
    rows, labels = content["data"], content[label_key]
    if not isinstance(rows, np.ndarray) or rows.shape[1:] != (3072,) or rows.dtype != np.uint8:
        raise UserError(f"{path}: data should be uint8 (n, 3072), is {_described(rows)}")
    if (
        not isinstance(labels, np.ndarray)
        or labels.shape != rows.shape[:1]
        or labels.dtype.kind not in "iu"
    ):
        raise UserError(
            f"{path}: {label_key} should be {len(rows)} integers, one per image, "
            f"is {_described(labels)}"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise UserError(
            f"{path}: {label_key} should be 0 to {num_classes - 1}, "
            f"are {labels.min()} to {labels.max()}"
        )
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels.astype(np.int64)


def load(
    spec: DatasetSpec,
    train_files: Sequence[str],
    test_files: Sequence[str],
    label_key: str,
    names_file: str,
    names_key: str,
    all_classes: int,
    classes: range,
    first_id: int,
) -> Content:
    """Reads both splits; of `classes` only, the first of which gets the id `first_id`."""
    import numpy as np

    def samples(files: Sequence[str]) -> Samples:
        batches = [_read_batch(spec.root / file, label_key, all_classes) for file in files]
        images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        if len(classes) < all_classes:
            chosen = (labels >= classes.start) & (labels < classes.stop)
            images, labels = images[chosen], labels[chosen]
        return Samples(np.ascontiguousarray(images), labels - classes.start + first_id)

    names = {}
    if exists(spec.root / names_file):
        found = load_pickle(spec.root / names_file).get(names_key, [])
        if not isinstance(found, list) or len(found) != all_classes:
            raise UserError(
                f"{spec.root / names_file}: {names_key} should be a list of {all_classes} names"
            )
        names = {first_id + i: found[label] for i, label in enumerate(classes)}
    return Content(samples(train_files), samples(test_files), names)


_load_10 = functools.partial(
    load,
    train_files=[f"data_batch_{i}" for i in range(1, 6)],
    test_files=["test_batch"],
    label_key="labels",
    names_file="batches.meta",
    names_key="label_names",
    all_classes=10,
    classes=range(10),
    first_id=0,
)
_load_100 = functools.partial(
    load,
    train_files=["train"],
    test_files=["test"],
    label_key="fine_labels",
    names_file="meta",
    names_key="fine_label_names",
    all_classes=100,
    classes=range(100),
    first_id=0,
)

CIFAR_10 = DatasetInfo(
    name="CIFAR-10",
    load=_load_10,
    num_classes=10,
    files=(*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"),
    folders=("", "cifar-10-batches-py"),
    download="https://www.cs.toronto.edu/~kriz/cifar.html",
    image_size=32,
    augmentation=Augmentation(flip=True, shift=0.15, zoom=0.25),
)
CIFAR_100 = DatasetInfo(
    name="CIFAR-100",
    load=_load_100,
    num_classes=100,
    files=("train", "test"),
    folders=("", "cifar-100-python"),
    download="https://www.cs.toronto.edu/~kriz/cifar.html",
    image_size=32,
    augmentation=Augmentation(flip=True, shift=0.15),
)


def _half(name: str, classes: range, first_id: int, *aliases: str) -> DatasetInfo:
    load_half = functools.partial(_load_100, classes=classes, first_id=first_id)
    return dataclasses.replace(
        CIFAR_100, name=name, aliases=aliases, num_classes=len(classes), load=load_half
    )


CIFAR_100_A = _half("CIFAR-100-a", range(50), 0, "CIFAR-100-a-consec")
CIFAR_100_B = _half("CIFAR-100-b", range(50, 100), 50)
CIFAR_100_B_CONSEC = _half("CIFAR-100-b-consec", range(50, 100), 0)
