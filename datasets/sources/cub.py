"""Caltech-UCSD Birds (Wah et al., 2011) and NABirds (Van Horn et al., 2015), which share a layout.

`images.txt` (`id relative/path`), `image_class_labels.txt` (`id label`), `train_test_split.txt`
(`id 1|0`, 1 = training), images under `images/`; class names in `classes.txt`. NAB's labels are
node ids of its hierarchy; they are not consecutive, and stay its class ids. `CUB-subN` uses
`train_test_split_N.txt` where there is one; the test images are always all of them.
"""

from __future__ import annotations

import re
from pathlib import Path

from datasets.info import Content, DatasetInfo, DatasetSpec, Samples
from datasets.sources.files import exists, read_lines
from utils import UserError

_LABEL = re.compile("[0-9]{1,15}")


def load(spec: DatasetSpec) -> Content:
    """Reads the lists of images."""
    images_file = spec.root / "images.txt"
    paths = _read_table(images_file)
    labels = _read_numbers(spec.root / "image_class_labels.txt")
    split = _read_split(spec.root / "train_test_split.txt")
    for table, file in ((labels, "image_class_labels.txt"), (split, "train_test_split.txt")):
        if table.keys() != paths.keys():
            different = min(table.keys() ^ paths.keys())
            where = file if different in table else images_file.name
            raise UserError(
                f"{spec.root}: image {different} is in {where} only; all need all lists"
            )
    train = [image for image in paths if split[image]]
    repeats = None
    subset_file = spec.root / f"train_test_split_{spec.samples_per_class}.txt"
    if spec.samples_per_class and exists(subset_file):
        train = [image for image, chosen in _read_split(subset_file).items() if chosen]
        if unknown := set(train) - paths.keys():
            raise UserError(f"{subset_file}: image {min(unknown)} is not in {images_file.name}")
        repeats = max(1, 30 // spec.samples_per_class)

    def samples(chosen: list[str]) -> Samples:
        files = [str(spec.root / "images" / paths[image]) for image in chosen]
        return Samples(files, [labels[image] for image in chosen])

    names = {}
    if exists(spec.root / "classes.txt"):
        table = _read_table(spec.root / "classes.txt")
        # What is not a class's number names none.
        names = {int(label): name for label, name in table.items() if _LABEL.fullmatch(label)}
    test = [image for image in paths if not split[image]]
    return Content(samples(train), samples(test), names, repeats)


def _read_table(path: Path) -> dict[str, str]:
    """Lines `key value`; the value may contain spaces."""
    table = {}
    for number, line in enumerate(read_lines(path), 1):
        if not line:
            continue
        key, *rest = line.split(None, 1)
        if not rest:
            raise UserError(f"{path}:{number}: expected an id and a value, found {line!r}")
        if key in table:
            raise UserError(f"{path}:{number}: id {key} is listed twice")
        table[key] = rest[0]
    return table


def _read_numbers(path: Path) -> dict[str, int]:
    table = _read_table(path)
    try:
        numbers = {key: int(value) for key, value in table.items()}
    except ValueError as error:
        raise UserError(f"{path}: expected lines of an id and a number ({error})") from None
    if large := [key for key, value in numbers.items() if abs(value) >= 2**53]:
        raise UserError(f"{path}: the number of {large[0]} is too large")
    return numbers


def _read_split(path: Path) -> dict[str, int]:
    split = _read_numbers(path)
    if wrong := [image for image, part in split.items() if part not in (0, 1)]:
        raise UserError(f"{path}: {wrong[0]} should have 0 or 1")
    return split


_FILES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "images")

CUB = DatasetInfo(
    name="CUB",
    aliases=("cub-200", "cub-200-2011", "cub200_2011", "caltech-ucsd-birds"),
    load=load,
    num_classes=200,
    files=_FILES,
    folders=("", "CUB_200_2011"),
    download="https://www.vision.caltech.edu/datasets/cub_200_2011/",
    image_size=448,
    resize=(512, 512),
    test_resize=512,
    mean=(123.82988033, 127.35116805, 110.25606303),
    std=(59.2230949, 58.0736071, 67.80251684),
)
NAB = DatasetInfo(
    name="NAB",
    aliases=("nabirds", "na-birds"),
    load=load,
    num_classes=555,
    files=_FILES,
    folders=("", "nabirds"),
    download="https://dl.allaboutbirds.org/nabirds",
    image_size=224,
    resize=(256, 479),
    test_resize=256,
    mean=(125.30513277, 129.66606421, 118.45121113),
    std=(57.0045467, 56.70059436, 68.44430446),
)
