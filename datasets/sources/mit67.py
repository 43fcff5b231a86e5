"""MIT indoor scenes (Quattoni & Torralba, 2009): 5,360 training and 1,340 test images, 67 classes.

Layout: `Images/<class>/<file>`; `TrainImages.txt` and `TestImages.txt` with lines `class/file.jpg`.
Class ids are the names of the folders.
"""

from __future__ import annotations

from pathlib import Path

from datasets.info import Content, DatasetInfo, DatasetSpec, Samples
from datasets.sources.files import read_lines
from utils import UserError


def load(spec: DatasetSpec) -> Content:
    """Reads the lists of images."""

    def samples(file: Path) -> Samples:
        lines = [line for line in read_lines(file) if line]
        for line in lines:
            if line.count("/") != 1:
                raise UserError(f"{file}: expected lines class/file.jpg, found {line!r}")
        paths = [str(spec.root / "Images" / line) for line in lines]
        return Samples(paths, [line.split("/")[0] for line in lines])

    return Content(samples(spec.root / "TrainImages.txt"), samples(spec.root / "TestImages.txt"))


MIT67_SCENES = DatasetInfo(
    name="MIT67Scenes",
    aliases=("mit67", "mit-67", "mit-indoor", "mit-indoor-67", "indoor67", "indoor-scenes"),
    load=load,
    num_classes=67,
    files=("TrainImages.txt", "TestImages.txt", "Images"),
    download="https://web.mit.edu/torralba/www/indoor.html",
    image_size=224,
    resize=(256, 256),
    test_resize=256,
    mean=(124.62788179, 110.01028625, 94.95780545),
    std=(68.56923599, 66.86607736, 67.35944349),
)
