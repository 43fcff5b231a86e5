"""Stanford Cars (Krause et al., 2013): 8,144 training and 8,041 test images of 196 models.

Layouts, as the data set can be had:

- `cars_annos.mat` with the struct array `annotations` (`relative_im_path`, `class` from 1 on,
  `test` 0 or 1) and `class_names`; image paths are relative to the root.
- `devkit/cars_train_annos.mat` and `cars_test_annos_withlabels.mat` (beside `devkit/` or in it),
  each with `annotations` (`fname`, `class`); images in `cars_train/` and `cars_test/`; names in
  `devkit/cars_meta.mat`.
- `train/<class>/…` and `test/<class>/…`; the ids are then the folders' names.
"""

from __future__ import annotations

import os
from pathlib import Path

from datasets.info import Content, DatasetInfo, DatasetSpec, Samples
from datasets.sources import folder
from datasets.sources.files import are_integers, exists, read_mat
from utils import UserError

_TRAIN = "devkit/cars_train_annos.mat"
_TEST = "cars_test_annos_withlabels.mat"


def load(spec: DatasetSpec) -> Content:
    """Reads the list of images."""
    if exists(spec.root / "cars_annos.mat"):
        return _from_one_list(spec.root)
    if exists(spec.root / _TRAIN):
        return _from_devkit(spec.root)
    return Content(*(folder.list_classes(spec.root / part) for part in ("train", "test")))


def _from_one_list(root: Path) -> Content:
    import numpy as np

    file = root / "cars_annos.mat"
    (paths, labels, is_test), content = _columns(file, "relative_im_path", "class", "test")
    if not np.isin(is_test, (0, 1)).all():
        raise UserError(f"{file}: test should be 0 or 1 for every image")
    is_test = is_test.astype(bool)

    def samples(chosen: np.ndarray) -> Samples:
        numbers = np.flatnonzero(chosen)
        return Samples([str(root / str(paths[i])) for i in numbers], labels[numbers])

    return Content(samples(~is_test), samples(is_test), _names(content))


def _from_devkit(root: Path) -> Content:
    test = root / _TEST
    if not exists(test):
        test = root / "devkit" / _TEST
    parts = {"cars_train": root / _TRAIN, "cars_test": test}

    def samples(part: str) -> Samples:
        (names, labels), _ = _columns(parts[part], "fname", "class")
        images = root / part
        if os.path.isdir(images / part):  # as some archives are packed
            images = images / part
        return Samples([str(images / str(name)) for name in names], labels)

    meta = root / "devkit" / "cars_meta.mat"
    names = _names(read_mat(meta, "class_names")) if exists(meta) else {}
    return Content(samples("cars_train"), samples("cars_test"), names)


def _columns(file: Path, *fields: str) -> tuple[list, dict]:
    """The fields of every annotation, the labels as integers, and the file's whole content."""
    content = read_mat(file, "annotations", optional=("class_names",))
    columns = [f"annotations.{field}" for field in fields]
    if lacking := [column for column in columns if column not in content]:
        raise UserError(f"{file}: has no {lacking[0]}; is it the official file?")
    values = [content[column].ravel() for column in columns]
    labels = values[fields.index("class")]
    if not are_integers(labels):
        raise UserError(f"{file}: class should be whole numbers, is {labels.dtype}")
    values[fields.index("class")] = labels.astype(int)
    return values, content


def _names(content: dict) -> dict[int, str]:
    names = content.get("class_names")
    return {} if names is None else dict(enumerate(names.ravel().tolist(), 1))


CARS = DatasetInfo(
    name="Cars",
    aliases=("stanford-cars", "cars196", "cars-196"),
    load=load,
    num_classes=196,
    files=("cars_annos.mat",),
    other_files=(
        (_TRAIN, _TEST, "cars_train", "cars_test"),
        (_TRAIN, f"devkit/{_TEST}", "cars_train", "cars_test"),
        ("train", "test"),
    ),
    folders=("", "stanford_cars", "car_data", "car_data/car_data"),
    image_size=448,
    resize=(512, 512),
    test_resize=512,
    mean=(120.03730636, 117.33780928, 116.0130335),
    std=(75.40415763, 75.15394251, 77.28286728),
)
