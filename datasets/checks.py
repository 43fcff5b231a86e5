"""Lists and files of a data set that cannot be right: everything wrong in one report."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets.batches.parallel import map_threads
from datasets.info import ClassId, Samples
from foreign_files import image_files
from utils import UserError, counted

logger = logging.getLogger(__name__)


ROLES = {"train": "training", "validation": "validation", "test": "test"}


def check_lists(name: str, samples: Mapping[str, Samples]) -> None:
    """Refuses lists that name an image twice, by the same path or through links.

    Args:
        name: Of the data set.
        samples: The splits that are used, by `"train"` and `"test"`.

    Raises:
        UserError: An image is listed twice, or in both splits, or a split is empty.
    """
    seen = {}
    for split, listed in samples.items():
        role = ROLES[split]
        if not len(listed.images):
            raise UserError(f"{name}: the lists name no {role} images")
        if not isinstance(listed.images, list):
            continue
        twice, both = [], []
        identities = map_threads(_identity, listed.images, "looking for images")
        for path, identity in zip(listed.images, identities, strict=True):
            other, other_split = seen.setdefault(identity, (path, None))
            if other_split is None:
                seen[identity] = path, split
            else:
                same = path if path == other else f"{path}, which is the file {other}"
                (twice if other_split == split else both).append(same)
        if twice:
            raise UserError(
                f"{name}: {counted(len(twice), f'{role} image is', f'{role} images are')} listed "
                f"more than once, first {twice[0]}; remove the copies"
            )
        if both:
            raise UserError(
                f"{name}: {counted(len(both), 'image is', 'images are')} in both the training and "
                f"the test split, first {both[0]}; remove them from one"
            )


def check_within(name: str, root: Path | None, samples: Samples) -> None:
    """Refuses lists that lead to other files of this machine; links under the root may.

    Args:
        name: Of the data set.
        root: Directory of its files.
        samples: Images of a split.

    Raises:
        UserError: The path of an image leaves the root.
    """
    if not isinstance(samples.images, list):
        return
    above = os.path.join(os.path.abspath(root), "")
    for path in samples.images:
        if not os.path.abspath(path).startswith(above):
            raise UserError(
                f"{name}: the lists name {path}, which is not under {root}; "
                "move or link the image there"
            )


def _identity(path: str) -> tuple[int, int] | str:
    """The same for all paths to one file, whatever links lead there."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return path  # the check of all files names it
    return status.st_dev, status.st_ino


def warn_of_absent(name: str, absent: set[ClassId], split: str) -> None:
    """Warns of classes without images in a split."""
    if absent:
        count = counted(len(absent), "class has", "classes have")
        logger.warning("%s: %s no %s images: %s", name, count, ROLES[split], _some(absent))


def check_classes(name: str, ids: set[ClassId]) -> None:
    """Refuses to train on a single class.

    Raises:
        UserError: There are fewer than two classes.
    """
    if len(ids) < 2:
        raise UserError(
            f"{name}: only {_some(ids) or 'no class'} has images to train on; "
            "a classifier needs two or more classes"
        )


def _some(ids: set[ClassId]) -> str:
    listed = [str(class_id) for class_id in sorted(ids)]
    return ", ".join(listed[:5]) + (", ..." if len(listed) > 5 else "")


def no_image_file(path: str) -> str | None:
    """What keeps the path from being a file with an image's header, or `None`."""
    try:
        if not os.path.isfile(path):
            os.stat(path)
            return f"{path}: is not a file"
        image_files.image_size(path)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in a list
        return f"{path}: {getattr(error, 'strerror', None) or error}"
    except UserError as error:
        return str(error)
    return None


def unreadable_image(path: str) -> str | None:
    """What keeps the file from being decoded, or `None`."""
    try:
        image_files.load_rgb(path)
    except UserError as error:
        return str(error)
    return None


def find_no_images(paths: Sequence[str]) -> dict[int, str]:
    """Positions and reasons of the paths that are no files with an image's header."""
    return _found(map_threads(no_image_file, paths, "looking at images"))


def find_unreadable(paths: Sequence[str]) -> dict[int, str]:
    """Positions and reasons of the files that cannot be decoded."""
    return _found(map_threads(unreadable_image, paths, "checking images"))


def _found(reasons: Sequence[str | None]) -> dict[int, str]:
    return {i: reason for i, reason in enumerate(reasons) if reason}


def report(name: str, reasons: Sequence[str], total: int, *, skip: bool) -> None:
    """Lists bad images on the log, all of them, and refuses them unless they may be skipped.

    Raises:
        UserError: There are bad images and `skip` is not set.
    """
    if not reasons:
        return
    for reason in reasons:
        logger.warning("%s%s", "left out: " if skip else "", reason)
    if not skip:
        raise UserError(
            f"{name}: {len(reasons)} of {total} images cannot be used, first {reasons[0]}; "
            "mend or remove them, or leave them out with --skip_bad_images"
        )
    logger.warning("%s: %d of %d images are left out", name, len(reasons), total)
