"""Oxford Flowers-102 (Nilsback & Zisserman, 2008): 2,040 training and 6,149 test images.

Layout: `jpg/image_00001.jpg`, …; `imagelabels.mat` with the labels from 1 on, which are the class
ids; `setid.mat` with the image numbers of each split. Training images are `trnid` and `valid`.
The files name no classes, so a class is named by its label.
"""

from __future__ import annotations

from datasets.info import Content, DatasetInfo, DatasetSpec, Samples
from datasets.sources.files import read_mat_integers
from utils import UserError


def load(spec: DatasetSpec) -> Content:
    """Reads the lists of images."""
    import numpy as np

    labels_file, split_file = spec.root / "imagelabels.mat", spec.root / "setid.mat"
    labels = read_mat_integers(labels_file, "labels")["labels"]
    splits = read_mat_integers(split_file, "trnid", "valid", "tstid")

    def samples(*parts: str) -> Samples:
        numbers = np.concatenate([splits[part] for part in parts])
        if numbers.size and not 1 <= numbers.min() <= numbers.max() <= len(labels):
            raise UserError(
                f"{split_file}: lists images {numbers.min()} to {numbers.max()}, "
                f"but {labels_file.name} has labels for 1 to {len(labels)}"
            )
        paths = [str(spec.root / "jpg" / f"image_{number:05}.jpg") for number in numbers]
        return Samples(paths, labels[numbers - 1])

    return Content(samples("trnid", "valid"), samples("tstid"))


FLOWERS = DatasetInfo(
    name="Flowers",
    aliases=("flowers-102", "oxford-flowers", "oxford-flowers-102", "oxford102", "102flowers"),
    load=load,
    num_classes=102,
    files=("jpg", "imagelabels.mat", "setid.mat"),
    folders=("", "flowers-102"),
    download="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
    image_size=448,
    resize=(512, 512),
    test_resize=512,
    mean=(110.7799141, 97.65648664, 75.32889973),
    std=(74.90387818, 62.70218863, 69.7656359),
)
