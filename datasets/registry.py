"""Data sets by name: spelling, suffixes, and the checks made before anything is loaded."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.augmentation import Policy, resolve
from datasets.info import CACHE_MODES, DatasetInfo, DatasetSpec, Validation
from datasets.sources import cars, cifar, cub, digits, flowers, folder, mit67
from datasets.sources.class_lists import ClassList, read_class_list
from datasets.sources.files import exists
from utils import UsageError, UserError, nearest_names

if TYPE_CHECKING:
    from datasets.dataset import Dataset

# A further data set: its file, and here its name.
_INFOS: tuple[DatasetInfo, ...] = (
    digits.DIGITS,
    cifar.CIFAR_10,
    cifar.CIFAR_100,
    cifar.CIFAR_100_A,
    cifar.CIFAR_100_B,
    cifar.CIFAR_100_B_CONSEC,
    cub.CUB,
    cub.NAB,
    cars.CARS,
    flowers.FLOWERS,
    mit67.MIT67_SCENES,
    folder.FOLDER,
)

_LARGE = (448, 512)
_ILSVRC_MEAN = (122.65435242, 116.6545058, 103.99789959)
_ILSVRC_STD = (71.40583196, 69.56888997, 73.0440314)
_CAFFE_MEAN = (123.68, 116.779, 103.939)

_SUFFIX = re.compile(r"[-_ ](large|ilsvrcmean|caffe|sub(\d+))$")


def _key(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.lower())


_BY_KEY = {_key(name): info for info in _INFOS for name in (info.name, *info.aliases)}


def dataset_names() -> list[str]:
    """The canonical names, without the suffixes that any of them may take."""
    return [info.name for info in _INFOS]


def check_dataset(
    name: str,
    data_root: str | os.PathLike | None = None,
    *,
    image_size: int | None = None,
    class_list: str | os.PathLike | None = None,
    test_fraction: float | None = None,
    validation: Validation | None = None,
    exif_rotation: bool | None = None,
    split_seed: int = 0,
    augmentation: Policy | None = None,
    splits: Sequence[str] = ("train", "test"),
) -> DatasetSpec:
    """Checks what can be checked without reading a data set, and resolves its sizes.

    Args:
        name: Any spelling, with suffixes (`cifar100-sub10`, `Flowers-caffe`).
        data_root: Directory of the files, or the one above it.
        image_size: Side of the images; the smaller side before cropping follows in proportion.
        class_list: A file whose lines begin with the ids of the classes to use, in their order.
        test_fraction: Share of each class to draw for testing, for a folder without a split.
        validation: Which training images are held out for validation; `None` for none.
        exif_rotation: Turn images upright as their EXIF data say; `None`: as is usual for the
            data set, which is to do so for one's own images only.
        split_seed: Draws the subset of a `-subN` name, the test images of a folder and the
            validation images.
        augmentation: How training images are changed at random; `None` for the paper's way.
        splits: The splits whose images are going to be read.

    Raises:
        UsageError: The name is unknown, the root is missing or lacks a file, the class list
            cannot be read, or a number is impossible.
    """
    info, suffixes = _parse_name(name)
    if image_size is not None and image_size < 1:
        raise UsageError(f"--image_size {image_size}: expected a positive number of pixels")

    # All images, with none to train on: for an evaluation.
    all_tested = test_fraction == 1 and "train" not in splits
    if test_fraction is not None and not 0 < test_fraction < 1 and not all_tested:
        raise UsageError(f"--test_fraction {test_fraction}: expected a share between 0 and 1")
    root = _check_root(info, data_root)
    if info.check is not None:
        test_fraction = info.check(root, test_fraction, splits)
    elif test_fraction is not None:
        raise UsageError(f"--test_fraction: {info.name} has a split of its own; leave it out")
    classes = None if class_list is None else _listed_classes(class_list)

    mean, std = info.mean, info.std
    size, resize, test_resize = info.image_size, info.resize, info.test_resize
    if "large" in suffixes:
        size, test_resize = _LARGE
        resize = (test_resize, test_resize)
    if "ilsvrcmean" in suffixes:
        mean, std = _ILSVRC_MEAN, _ILSVRC_STD
    if "caffe" in suffixes:
        mean, std = _CAFFE_MEAN, (1.0, 1.0, 1.0)
    crop = image_size or size
    if resize is None:
        resize, test_resize = (crop, crop), crop
    else:
        resize = tuple(round(side * crop / size) for side in resize)
        test_resize = round(test_resize * crop / size)
    canonical = "-".join(
        [info.name, *(s for s in ("large", "ilsvrcmean", "caffe") if s in suffixes)]
    )
    if "sub" in suffixes:
        canonical += f"-sub{suffixes['sub']}"
    return DatasetSpec(
        name=canonical,
        info=info,
        root=root,
        num_classes=info.num_classes if classes is None else classes.count,
        image_size=crop,
        resize=resize,
        test_resize=test_resize,
        mean=mean,
        std=std,
        channel_order="bgr" if "caffe" in suffixes else "rgb",
        samples_per_class=suffixes.get("sub"),
        class_list=classes,
        test_fraction=test_fraction,
        validation=validation,
        exif_rotation=info.exif_rotation if exif_rotation is None else exif_rotation,
        split_seed=split_seed,
        augmentation=resolve_augmentation(augmentation, info, crop),
    )


def load_dataset(
    name: str,
    data_root: str | os.PathLike | None = None,
    *,
    cache: str = "auto",
    cache_dir: str | os.PathLike | None = None,
    skip_bad_images: bool = False,
    check_files: bool = True,
    train_repeats: int | None = None,
    splits: Sequence[str] = ("train", "test"),
    **choices: Any,
) -> Dataset:
    """Loads a data set.

    Args:
        cache: Where decoded images are kept: `"ram"`, `"disk"`, `"none"`, or `"auto"`, which is
            `"disk"` if an earlier run left them there, otherwise `"ram"` if they fit in half of
            the free memory, otherwise `"none"`.
        cache_dir: Directory of the disk form and of computed statistics; default: the user's.
        skip_bad_images: Leave out images that cannot be read, instead of refusing the data set.
        check_files: Look at the files at all. Without, nothing is cached, and what is wrong shows
            when an image is read: for `Dataset.check_images`.
        train_repeats: How often an epoch goes through the training images; by default once, and
            for a `-subN` name as often as makes about as many steps as with all images.
        splits: The splits whose images are going to be read; validation images are read with
            those that train. Those of another one are listed, so that the classes and their
            indices are the same, but not looked at: an evaluation needs `("test",)` only.
        **choices: As for `check_dataset`.

    Raises:
        UsageError: As `check_dataset`.
        UserError: A file is damaged or is not what the data set's layout says.
        ValueError: `splits` are others than `"train"` and `"test"`.
    """
    if not splits or not set(splits) <= {"train", "test"}:
        raise ValueError(f"splits {splits}: expected train, test or both")
    spec = check_dataset(name, data_root, splits=splits, **choices)
    from datasets import loading  # NumPy and Pillow, which `--help` does not wait for

    if cache not in CACHE_MODES:
        raise UsageError(f"--cache {cache}: expected one of {', '.join(CACHE_MODES)}")
    return loading.load(
        spec,
        cache_mode=cache,
        cache_dir=None if cache_dir is None else Path(cache_dir),
        skip_bad_images=skip_bad_images,
        check_files=check_files,
        train_repeats=train_repeats,
        splits=splits,
    )


def _parse_name(name: str) -> tuple[DatasetInfo, dict[str, int]]:
    """The data set, and its suffixes; the value of `sub` is the number of images per class."""
    rest, suffixes = name.strip(), {}
    while _key(rest) not in _BY_KEY and (match := _SUFFIX.search(rest.lower())):
        suffix = "sub" if match[2] else match[1]
        if suffix in suffixes:
            raise UsageError(f"--dataset {name}: -{suffix} is given twice")
        suffixes[suffix] = int(match[2] or 0)
        rest = rest[: match.start()]
    info = _BY_KEY.get(_key(rest))
    if info is None:
        raise UsageError(
            f"--dataset {name}: unknown data set; {nearest_names(rest, dataset_names())}"
        )
    if info.resize is None and (wrong := suffixes.keys() - {"sub"}):
        raise UsageError(f"--dataset {name}: {info.name} takes -subN only, not -{min(wrong)}")
    if {"ilsvrcmean", "caffe"} <= suffixes.keys():
        raise UsageError(f"--dataset {name}: -ilsvrcmean and -caffe exclude each other")
    if suffixes.get("sub") == 0 and "sub" in suffixes:
        raise UsageError(f"--dataset {name}: -sub0 leaves no training images; use -sub1 or more")
    return info, suffixes


def _check_root(info: DatasetInfo, data_root: str | os.PathLike | None) -> Path | None:
    """The directory that holds the files: the given one or a known folder in it."""
    if not info.needs_root:
        if data_root is not None:
            raise UsageError(
                f"--data_root {data_root}: {info.name} has no files of its own; "
                "leave it out, or name another data set with --dataset"
            )
        return None
    layouts = (info.files, *info.other_files)
    expected = "the directory with " + "; or ".join(
        ", ".join(files) or "the images" for files in layouts
    )
    if info.download:
        expected += f" (from {info.download})"
    if data_root is None:
        raise UsageError(f"--data_root is missing: {info.name} needs {expected}")
    root = Path(data_root)
    if not os.path.isdir(root):
        what = "is a file" if exists(root) else "does not exist"
        raise UsageError(f"--data_root {root}: {what}; {info.name} needs {expected}")
    missing = []
    for files in layouts:
        for candidate in (root / name for name in info.folders):
            lacking = [file for file in files if not exists(candidate / file)]
            if not lacking:
                return candidate
            missing.append((len(lacking) / len(files), candidate / lacking[0]))
    # Of the possible places name the one that comes nearest.
    nearest = min(missing, key=lambda item: item[0])[1]
    raise UsageError(f"--data_root {root}: {nearest} is missing; {info.name} needs {expected}")


def _listed_classes(path: str | os.PathLike) -> ClassList:
    try:
        classes = read_class_list(path)
    except UserError as error:
        raise UsageError(f"--class_list {error}") from None
    if len(classes.lines) < 2:
        raise UsageError(f"--class_list {path}: expected at least two classes, one per line")
    return classes


def resolve_augmentation(
    policy: Policy | None, info: DatasetInfo, image_size: int
) -> Policy | None:
    """The policy with the defaults of a data set, see `datasets.augmentation.resolve`."""
    small = info.resize is None
    mirrored = info.augmentation.flip if info.augmentation else True
    return resolve(policy, info.name, image_size, small=small, mirrored=mirrored)
