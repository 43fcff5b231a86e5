"""What a data set's file states about it, and what a run makes of that.

Nothing here imports NumPy, so that a script can check its arguments at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from datasets.augmentation import Policy
    from datasets.sources.class_lists import ClassList

ClassId = int | str
# Where decoded images are kept; see `datasets.load_dataset`.
CACHE_MODES = ("auto", "none", "ram", "disk")


@dataclass(frozen=True)
class Augmentation:
    """Random changes of small images, uniform in the ranges given.

    Attributes:
        flip: Mirror horizontally, p = 0.5.
        shift: Largest shift each way, as a share of the side.
        zoom: Largest change of height and width, each on its own.
    """

    flip: bool
    shift: float
    zoom: float = 0.0


@dataclass
class Samples:
    """Images of one split: a uint8 array `(n, side, side, 3)` or paths, and each one's class id."""

    images: np.ndarray | list[str]
    labels: Sequence[ClassId] | np.ndarray


@dataclass
class Content:
    """What a data set's `load` returns.

    Attributes:
        train: Training images.
        test: Test images.
        names: Class names by id; a class without one is named by its id.
        repeats: How often an epoch goes through the training images; `None` unless `load` itself
            chose the subset of a `-subN` name.
    """

    train: Samples
    test: Samples
    names: Mapping[ClassId, str] = field(default_factory=dict)
    repeats: int | None = None


@dataclass(frozen=True)
class Validation:
    """Training images held out to select on: a share of each class, or one of several folds.

    Attributes:
        fraction: The share, in (0, 1); `None` for a fold.
        fold: Number of the fold from 1, and how many there are.
    """

    fraction: float | None = None
    fold: tuple[int, int] | None = None


@dataclass(frozen=True)
class DatasetInfo:
    """A data set as its file describes it.

    Attributes:
        name: Canonical name.
        load: Reads the lists (or the arrays) of images; gets the `DatasetSpec`.
        image_size: Side of the images the network gets.
        num_classes: Number of classes, `None` if only the files tell.
        aliases: Other spellings; case, `-` and `_` never matter.
        files: What must exist under the root.
        other_files: Other sets of files that will do.
        needs_root: Whether it has files at all.
        check: Further checks of root, `--test_fraction` and the splits that are going to be read,
            for data sets without a fixed layout; raises `UsageError`, and returns the fraction.
            Without it `--test_fraction` is refused.
        folders: Where under the given root the files may be; `""` is the root itself.
        download: Where the files come from, for messages.
        resize: Range of the smaller side at training; `None` for arrays, which are not cropped.
        test_resize: The smaller side at test time.
        mean: Channel means (RGB, 0 to 255); computed from the training images if `None`.
        std: Channel standard deviations, likewise.
        exif_rotation: Whether images are turned upright as their EXIF data say; the paper's
            implementation ignored these.
        augmentation: For arrays; files are augmented as `transforms.draw_view` says.
    """

    name: str
    load: Callable[[DatasetSpec], Content]
    image_size: int
    num_classes: int | None = None
    aliases: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    other_files: tuple[tuple[str, ...], ...] = ()
    needs_root: bool = True
    check: Callable[[Path, float | None, Sequence[str]], float | None] | None = None
    folders: tuple[str, ...] = ("",)
    download: str = ""
    resize: tuple[int, int] | None = None
    test_resize: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    exif_rotation: bool = False
    augmentation: Augmentation | None = None


@dataclass(frozen=True)
class DatasetSpec:
    """A data set as one run asks for it: name with suffixes, root and sizes, all checked.

    Attributes:
        name: Canonical name with its suffixes.
        info: The data set's description.
        root: Directory of the files, `None` if there are none.
        num_classes: Number of classes, `None` if only loading tells.
        image_size: Side of the images the network gets.
        resize: Range of the smaller side at training.
        test_resize: The smaller side at test time.
        mean: Means of the R, G and B channels, `None` if computed.
        std: Channel standard deviations, likewise.
        channel_order: `"rgb"` or `"bgr"`: what the network sees. Images and batches are RGB.
        samples_per_class: N of `-subN`, `None` for all.
        class_list: The classes to use, in their order; `None` for all, sorted.
        test_fraction: Share of each class that is drawn for testing, where there is no split; 1 if
            all images are tested and none are trained on.
        validation: Which training images are held out for validation, `None` for none.
        exif_rotation: Whether images are turned upright as their EXIF data say.
        split_seed: Draws the subset, the test images of a folder and the validation images.
        augmentation: How training images are changed at random; `None` for the paper's way.
    """

    name: str
    info: DatasetInfo
    root: Path | None
    num_classes: int | None
    image_size: int
    resize: tuple[int, int]
    test_resize: int
    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None
    channel_order: str = "rgb"
    samples_per_class: int | None = None
    class_list: ClassList | None = None
    test_fraction: float | None = None
    validation: Validation | None = None
    exif_rotation: bool = False
    split_seed: int = 0
    augmentation: Policy | None = None
