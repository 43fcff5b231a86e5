"""One's own images in folders, in one of three layouts.

- `train.txt` and `test.txt`: lines `path [label]`, relative to the root (see `image_lists`).
- `train/<class>/…` and `test/<class>/…`.
- `<class>/…`, or these below `train/` alone, of which `--test_fraction` of each class is drawn for
  testing, by the split seed and the images' paths.

Capitals do not matter, and common other names (`training`, `val`, `validation`, …) will do; if
there are both, `test` is tested on. Only to test, `test/` or `test.txt` alone is enough, and
`<class>/…` without a fraction means all images.

Class ids are the labels or the names of the folders, as text in Unicode's form NFC. What systems
put between one's files (`@eaDir`, `__MACOSX`, hidden files) is no class and no image.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.info import Content, DatasetInfo, DatasetSpec, Samples
from datasets.sources.files import exists
from datasets.sources.image_lists import is_clutter, is_image, read_image_list
from foreign_files.lines import same_name
from utils import UsageError, UserError, counted

logger = logging.getLogger(__name__)

# What the folders and lists of a split are called, without `set`, `images` and the like; of the
# kinds to test on the first that is there is taken.
_ROLES = {
    "train": ("train", "training", "trn"),
    "test": ("test", "testing", "tst"),
    "evaluation": ("eval", "evaluation"),
    "validation": ("val", "valid", "validation", "validate", "dev"),
}
_ROLE_OF = {name: role for role, names in _ROLES.items() for name in names}
_SUFFIX = re.compile(r"(?<=.)[-_ ]?(set|split|data|images|imgs)$")
_LISTS = (".txt", ".csv", ".tsv")
# Photographs that are not read.
_OTHER_IMAGES = frozenset(
    ".arw .avif .cr2 .cr3 .dng .heic .heif .jp2 .jxl .nef .orf .psd .raf .rw2 .svg".split()
)


@dataclass(frozen=True)
class _Layout:
    """Where the splits of a root are: folders or lists.

    Attributes:
        train: `None` if there are only folders of classes, or there is only something to test.
        test: `None` if it has to be drawn.
        unused: What else looks like a split, and folders beside them.
    """

    train: Path | None
    test: Path | None
    unused: tuple[Path, ...] = ()


def _layout(root: Path) -> _Layout:
    exists(root / "train")  # says if the directory cannot be searched
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
        entries = [entry for entry in entries if not is_clutter(entry.name)]
        folders = [entry.name for entry in entries if entry.is_dir()]
    except OSError as error:
        raise UsageError(f"--data_root {root}: {error.strerror}; make it readable") from None
    files = [entry.name for entry in entries if entry.name not in folders]
    lists = {name: Path(name).stem for name in files if Path(name).suffix.lower() in _LISTS}
    layouts = [_splits(root, lists), _splits(root, {name: name for name in folders})]
    for layout in layouts:
        if layout.train and layout.test:
            used = {layout.train, layout.test, *layout.unused}
            beside = () if layout is layouts[0] else [root / name for name in folders]
            return replace(layout, unused=(*layout.unused, *(p for p in beside if p not in used)))
    # A folder called train beside others may well be a class of vehicles.
    if not layouts[0].test and any(_role(name) is None for name in folders):
        return _Layout(None, None)
    return next((layout for layout in layouts if layout.train or layout.test), _Layout(None, None))


def _role(name: str) -> str | None:
    return _ROLE_OF.get(name.lower()) or _ROLE_OF.get(_SUFFIX.sub("", name.lower()))


def _splits(root: Path, names: dict[str, str]) -> _Layout:
    """The splits among some entries of a root, by their names without extensions."""
    by_role: dict[str, list[Path]] = {role: [] for role in _ROLES}
    for name, stem in names.items():
        if role := _role(stem):
            by_role[role].append(root / name)
    tests = [by_role[role] for role in ("test", "evaluation", "validation") if by_role[role]]
    for same in (by_role["train"], *tests[:1]):
        if len(same) > 1:
            raise UsageError(
                f"--data_root {root}: {' and '.join(path.name for path in same)} mean the same "
                "split; rename or join them"
            )
    train, *_ = [*by_role["train"], None]
    test, *_ = [*(tests[0] if tests else ()), None]
    return _Layout(train, test, tuple(path for same in tests[1:] for path in same))


def check(root: Path, test_fraction: float | None, splits: Sequence[str]) -> float | None:
    """Refuses a root without the splits that are needed or a fraction to draw them, or with both.

    Returns:
        The fraction; 1 where all images are tested, as only to test no split is needed.
    """
    layout = _layout(root)
    if layout.train and layout.test and test_fraction is not None:
        raise UsageError(
            f"--test_fraction: {root} has a split already, {layout.train.name} and "
            f"{layout.test.name}; leave it out"
        )
    if layout.test and not layout.train:
        if "train" in splits:
            raise UsageError(
                f"--data_root {root}: has {layout.test.name}, but no "
                f"{_alike('train', layout.test)} to train on"
            )
        if test_fraction is not None:
            raise UsageError(
                f"--test_fraction: {root} has only images to test on, {layout.test.name}; "
                "leave it out"
            )
    elif not layout.test and test_fraction is None:
        if not layout.train and "train" not in splits:
            return 1.0
        found = "neither train/ and test/ nor train.txt and test.txt"
        if layout.train:
            found = f"{layout.train.name}, but no {_alike('test', layout.train)}"
        raise UsageError(
            f"--data_root {root}: has {found}; give --test_fraction, the share of each class to "
            "test on"
        )
    return test_fraction


def _alike(split: str, other: Path) -> str:
    """What a split would be called beside the other one; beside a list only a list counts."""
    return f"{split}/ or {split}.txt" if os.path.isdir(other) else f"{split}.txt"


def load(spec: DatasetSpec) -> Content:
    """Lists the images."""
    layout = _layout(spec.root)
    nothing = Samples([], [])
    if layout.test:
        if layout.unused or _role(layout.test.stem) != "test":
            unused = " and ".join(path.name for path in layout.unused[:3])
            unused += ", …" if len(layout.unused) > 3 else ""
            logger.info(
                "folder: tested on %s%s", layout.test.name, unused and f"; {unused} is not used"
            )
        train = _read(layout.train) if layout.train else nothing
        return Content(train, _read(layout.test))
    samples = _read(layout.train or spec.root)
    if spec.test_fraction == 1:
        count = counted(len(samples.images), "image is", "images are")
        logger.info("folder: %s tested, all of %s", count, spec.root)
        return Content(nothing, samples)
    return _draw_split(samples, spec)


def _read(part: Path) -> Samples:
    return list_classes(part) if os.path.isdir(part) else read_image_list(part)


def list_classes(root: Path) -> Samples:
    """The images under the folders in `root`, each of which is a class."""
    paths, labels = [], []
    try:
        names = sorted(entry.name for entry in os.scandir(root))
    except OSError as error:
        raise UserError(f"{root}: {error.strerror}") from None
    clutter = [name for name in names if is_clutter(name) and name[0] != "."]
    names = [name for name in names if not is_clutter(name)]
    classes = [name for name in names if os.path.isdir(root / name)]
    if not classes:
        raise UserError(f"{root}: has no folders; expected one for each class")
    loose = [name for name in names if name not in classes and is_image(name)]
    _warn("%s: ignored %s beside the folders of the classes, first %s", root, loose, "image")
    ignored, empty, images_of = [], [], {}
    for name in classes:
        files = _walk(root / name, (), clutter)
        images = [file for file in files if is_image(file)]
        ignored += sorted(set(files) - set(images))
        paths += images
        labels += [same_name(name)] * len(images)
        if images:
            images_of[name] = images
        else:
            empty.append(name)
    other = _warn_of_other_formats(root, ignored)
    ignored = sorted(set(ignored) - set(other))
    file = "file that is no image by its name", "files that are no images by their names"
    _warn("%s: ignored %s, first %s", root, ignored, *file)
    system = "file or folder of a system", "folders and files of systems"
    _warn("%s: ignored %s, first %s", root, clutter, *system)
    hold = "folder holds no images and is no class", "folders hold no images and are no classes"
    _warn("%s: %s, first %s", root, empty, *hold)
    _warn_of_alike(root, classes)
    _warn_of_classes_below(root, images_of)
    return Samples(paths, labels)


def list_images(folder: Path) -> list[str]:
    """The images anywhere under a folder, by their names; hidden ones are left out."""
    files = _walk(folder, (), [])
    _warn_of_other_formats(folder, files)
    return [file for file in files if is_image(file)]


def _warn_of_other_formats(root: Path, files: list[str]) -> list[str]:
    """Names photographs that are not read; returns them."""
    other = [file for file in files if os.path.splitext(file)[1].lower() in _OTHER_IMAGES]
    form = "image of a format that is not read", "images of formats that are not read"
    _warn("%s: left out %s; convert %s to JPEG", root, other, *form)
    return other


def _warn(message: str, root: Path, found: list[str], *nouns: str) -> None:
    if found:
        logger.warning(message, root, counted(len(found), *nouns), found[0])


def _warn_of_alike(root: Path, classes: list[str]) -> None:
    """Says which folders are one class, and which ones differ by capitals or spaces only."""
    by_id, by_look = {}, {}
    for name in classes:
        class_id = same_name(name)
        if class_id in by_id:
            logger.warning("%s: two folders are called %s; they are one class", root, class_id)
        by_id[class_id] = name
        by_look.setdefault(" ".join(class_id.casefold().split()), set()).add(class_id)
    for alike in by_look.values():
        if len(alike) > 1:
            logger.warning(
                "%s: the classes %s differ by capitals or spaces only",
                *(root, " and ".join(map(repr, sorted(alike)))),
            )


def _warn_of_classes_below(root: Path, images_of: dict[str, list[str]]) -> None:
    """Says if each folder holds nothing but folders of the same names: they may be the classes.

    So it is with a split whose folders have names of their own, and with a folder too many.
    """
    below = []
    for name, images in images_of.items():
        start = len(os.path.join(root / name, ""))
        below.append({os.path.dirname(path[start:]).split(os.sep)[0] for path in images})
    shared = sorted(set.intersection(*below)) if below and "" not in set.union(*below) else []
    if len(shared) > 1:
        folders = list(images_of)
        logger.warning(
            "%s: taken for %s: %s; if rather %s in it are the classes, give --data_root %s%s",
            root,
            "classes" if len(folders) > 1 else "a class",
            ", ".join(folders[:3]) + (", …" if len(folders) > 3 else ""),
            ", ".join(shared[:3]) + (", …" if len(shared) > 3 else ""),
            root / folders[0],
            ", or call the folders train and test" if len(folders) == 2 else "",
        )


def _walk(folder: Path, above: tuple[tuple[int, int], ...], clutter: list[str]) -> list[str]:
    """The files under a folder, sorted, without those of systems.

    Args:
        folder: The folder.
        above: What identifies the folders above, to find loops of links.
        clutter: Gets what was left out and is not hidden.
    """
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
        if is_clutter(entry.name):
            if entry.name[0] != ".":
                clutter.append(entry.path)
        # Of a link to itself `is_dir` raises; as a file the check of all files names it.
        elif os.path.isdir(entry.path):
            files += _walk(folder / entry.name, (*above, identity), clutter)
        else:
            files.append(entry.path)
    return files


def _draw_split(samples: Samples, spec: DatasetSpec) -> Content:
    """Draws the test images of each class: at least one, and at least one is left.

    They are those whose paths have the smallest hashes, so that an image added or removed later
    moves no other one across, but for the one by which the share of the class may change.
    """

    def rank(path: str) -> bytes:
        relative = same_name(Path(path).relative_to(spec.root).as_posix())
        return hashlib.sha256(
            f"{spec.split_seed}/{relative}".encode(errors="surrogateescape")
        ).digest()

    by_class = {}
    for path, label in zip(samples.images, samples.labels, strict=True):
        by_class.setdefault(label, []).append(path)
    if single := sorted(label for label, members in by_class.items() if len(members) < 2):
        raise UserError(
            f"{spec.root}: {counted(len(single), 'class has', 'classes have')} one image, which "
            "cannot be split: "
            f"{', '.join(single[:10])}{', …' if len(single) > 10 else ''}; add some or remove them"
        )
    parts = Samples([], []), Samples([], [])
    for label, members in sorted(by_class.items()):
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
