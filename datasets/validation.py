"""Which training images are held out for validation: drawn class by class, by the split seed."""

import hashlib
from pathlib import Path

import numpy as np

from datasets.batches import rng
from datasets.batches.split import Split
from datasets.info import DatasetSpec
from utils import UserError


def draw(spec: DatasetSpec, train: Split) -> tuple[Split, Split]:
    """Parts the training images.

    Of a class with one image that stays in training. Of the others a share takes at least one
    image and leaves at least one; of several folds every image is in one, and their sizes differ
    by few images.

    Args:
        spec: What was asked for: `validation` and `split_seed`.
        train: All training images.

    Returns:
        What is left to train on, and the validation images.

    Raises:
        UserError: No class has two images.
    """
    chosen, before = [], 0
    for label in np.unique(train.labels):
        members = _ranked(spec, train, int(label))
        if len(members) < 2:
            continue
        if spec.validation.fold:
            number, folds = spec.validation.fold
            # Counted on from class to class, so that small classes do not all fill the first folds.
            chosen += members[(before + np.arange(len(members))) % folds == number - 1].tolist()
            before += len(members)
        else:
            count = round(spec.validation.fraction * len(members))
            chosen += members[: min(max(1, count), len(members) - 1)].tolist()
    if not chosen:
        raise UserError(
            f"{spec.name}: no training images can be held out for validation: no class has two, "
            "or there are more folds than images"
        )
    chosen = np.sort(chosen)
    return train.take(np.setdiff1d(np.arange(len(train)), chosen)), train.take(chosen)


def _ranked(spec: DatasetSpec, train: Split, label: int) -> np.ndarray:
    """The positions of a class's images in a random order.

    Files are ordered by hashes of their paths: one that is added or removed later leaves the order
    of the others as it was.
    """
    members = np.flatnonzero(train.labels == label)
    if isinstance(train.images, np.ndarray):
        draw = rng.generator(spec.split_seed, rng.VALIDATION, position=label)
        return draw.permutation(members)

    def rank(position: int) -> bytes:
        path = Path(train.images[position]).relative_to(spec.root).as_posix()
        text = f"validation/{spec.split_seed}/{path}"
        return hashlib.sha256(text.encode(errors="surrogateescape")).digest()

    return np.array(sorted(members.tolist(), key=rank))
