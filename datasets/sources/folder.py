"""One's own images in folders, in one of three layouts.

- `train.txt` and `test.txt` (or `val.txt`): lines `path [label]`, relative to the root; without a
  label the folder the image is in names the class.
- `train/<class>/…` and `test/<class>/…` (or `val/…`).
- `<class>/…`, of which `--test_fraction` of each class is drawn for testing, by the split seed and
  the images' paths.

Class ids are the labels or the names of the folders, as text. Images have the extensions below;
what is in them may differ.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

from datasets.info import Content, DatasetInfo, DatasetSpec, Samples
from datasets.sources.files import exists, read_lines
from utils import UsageError, UserError

logger = logging.getLogger(__name__)

EXTENSIONS = frozenset(".bmp .gif .jfif .jpe .jpeg .jpg .png .ppm .pgm .tif .tiff .webp".split())
_TEST_NAMES = ("test", "val", "valid", "validation")


def _split(root: Path) -> tuple[Path, Path] | None:
    """The two lists or folders of a split that is there, lists first."""
    for suffix in (".txt", ""):
        train = root / f"train{suffix}"
        for name in _TEST_NAMES:
            if exists(train) and exists(root / f"{name}{suffix}"):
                return train, root / f"{name}{suffix}"
    return None


def check(root: Path, test_fraction: float | None) -> None:
    """Refuses a root without a split or a fraction to draw one, and one with both."""
    split = _split(root)
    if split is None and test_fraction is None:
        raise UsageError(
            f"--data_root {root}: has neither train/ and test/ nor train.txt and test.txt; "
            "for one folder per class give --test_fraction, the share to test on"
        )
    if split is not None and test_fraction is not None:
        raise UsageError(
            f"--test_fraction: {root} has a split already, {split[0].name} and {split[1].name}; "
            "leave it out"
        )


def load(spec: DatasetSpec) -> Content:
    """Lists the images."""
    split = _split(spec.root)
    if split is None:
        return _draw_split(_list_classes(spec.root), spec)
    read = _read_list if os.path.isfile(split[0]) else _list_classes
    return Content(*(read(part) for part in split))


def _read_list(file: Path) -> Samples:
    paths, labels = [], []
    for line in filter(None, read_lines(file)):
        path, *label = line.rsplit(None, 1)
        # A path may contain spaces; its end tells where it ends.
        if not label or Path(line).suffix.lower() in EXTENSIONS:
            path, label = line, [Path(line).parent.name]
        if not label[0]:
            raise UserError(f"{file}: {line} has neither a label nor a folder that names its class")
        paths.append(str(file.parent / path))
        labels.append(label[0])
    return Samples(paths, labels)


def _list_classes(root: Path) -> Samples:
    """The images under the folders in `root`, each of which is a class."""
    paths, labels = [], []
    try:
        names = sorted(entry.name for entry in os.scandir(root) if entry.name[0] != ".")
    except OSError as error:
        raise UserError(f"{root}: {error.strerror}") from None
    classes = [name for name in names if os.path.isdir(root / name)]
    if not classes:
        raise UserError(f"{root}: has no folders; expected one for each class")
    loose = [
        name for name in names if name not in classes and Path(name).suffix.lower() in EXTENSIONS
    ]
    _warn("%s: ignored %d images beside the folders of the classes, first %s", root, loose)
    ignored, empty = [], []
    for name in classes:
        files = _walk(root / name, ())
        images = [file for file in files if Path(file).suffix.lower() in EXTENSIONS]
        ignored += sorted(set(files) - set(images))
        paths += images
        labels += [name] * len(images)
        if not images:
            empty.append(name)
    _warn("%s: ignored %d files that are no images by their names, first %s", root, ignored)
    _warn("%s: %d folders hold no images and are no classes, first %s", root, empty)
    return Samples(paths, labels)


def list_images(folder: Path) -> list[str]:
    """The images anywhere under a folder, by their names; hidden ones are left out."""
    return [file for file in _walk(folder, ()) if Path(file).suffix.lower() in EXTENSIONS]


def _warn(message: str, root: Path, found: list[str]) -> None:
    if found:
        logger.warning(message, root, len(found), found[0])


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> list[str]:
    """The files under a folder, sorted, hidden ones left out; `above` finds loops of links."""
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from None
    identity = status.st_dev, status.st_ino
    if identity in above:
        raise UserError(f"{folder}: a link back to a folder above it; remove the link")
    files = []
    for entry in entries:
        if entry.name.startswith("."):
            continue
        # Of a link to itself `is_dir` raises; as a file the check of all files names it.
        if os.path.isdir(entry.path):
            files += _walk(folder / entry.name, (*above, identity))
        else:
            files.append(entry.path)
    return files


def _draw_split(samples: Samples, spec: DatasetSpec) -> Content:
    """Draws the test images of each class: at least one, and at least one is left.

    They are those whose paths have the smallest hashes, so that an image added or removed later
    moves no other one across, but for the one by which the share of the class may change.
    """

    def rank(path: str) -> bytes:
        relative = Path(path).relative_to(spec.root).as_posix()
        return hashlib.sha256(
            f"{spec.split_seed}/{relative}".encode(errors="surrogateescape")
        ).digest()

    by_class = {}
    for path, label in zip(samples.images, samples.labels, strict=True):
        by_class.setdefault(label, []).append(path)
    parts = Samples([], []), Samples([], [])
    for label, members in sorted(by_class.items()):
        if len(members) < 2:
            raise UserError(
                f"{spec.root / label}: one image cannot be split; add some or remove it"
            )
        count = min(max(1, round(spec.test_fraction * len(members))), len(members) - 1)
        chosen = set(sorted(members, key=rank)[:count])
        for path in members:
            part = parts[path in chosen]
            part.images.append(path)
            part.labels.append(label)
    return Content(*parts)


FOLDER = DatasetInfo(
    name="folder",
    aliases=("folders", "image-folder"),
    load=load,
    check=check,
    image_size=224,
    resize=(256, 256),
    test_resize=256,
    exif_rotation=True,
)
