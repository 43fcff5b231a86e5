"""Stanford Cars (Krause et al., 2013): 8,144 training and 8,041 test images of 196 models.

Layout: `cars_annos.mat` with the struct array `annotations` (`relative_im_path`, `class` from 1 on,
`test` 0 or 1) and `class_names`; image paths are relative to the root.
"""

from __future__ import annotations

from datasets.info import Content, DatasetInfo, DatasetSpec, Samples
from datasets.sources.files import are_integers, read_mat
from utils import UserError


def load(spec: DatasetSpec) -> Content:
    """Reads the list of images."""
    import numpy as np

    file = spec.root / "cars_annos.mat"
    content = read_mat(file, "annotations", optional=("class_names",))
    columns = [f"annotations.{field}" for field in ("relative_im_path", "class", "test")]
    if lacking := [column for column in columns if column not in content]:
        raise UserError(f"{file}: has no {lacking[0]}; is it the official file?")
    paths, labels, is_test = (content[column].ravel() for column in columns)
    if not are_integers(labels):
        raise UserError(f"{file}: class should be whole numbers, is {labels.dtype}")
    if not np.isin(is_test, (0, 1)).all():
        raise UserError(f"{file}: test should be 0 or 1 for every image")
    labels, is_test = labels.astype(int), is_test.astype(bool)

    def samples(chosen: np.ndarray) -> Samples:
        numbers = np.flatnonzero(chosen)
        return Samples([str(spec.root / str(paths[i])) for i in numbers], labels[numbers])

    names = {}
    if "class_names" in content:
        names = dict(enumerate(content["class_names"].ravel().tolist(), 1))
    return Content(samples(~is_test), samples(is_test), names)


CARS = DatasetInfo(
    name="Cars",
    aliases=("stanford-cars", "cars196", "cars-196"),
    load=load,
    num_classes=196,
    files=("cars_annos.mat",),
    image_size=448,
    resize=(512, 512),
    test_resize=512,
    mean=(120.03730636, 117.33780928, 116.0130335),
    std=(75.40415763, 75.15394251, 77.28286728),
)
