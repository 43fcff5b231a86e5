"""Lists of images and their classes, one `path [label]` per line."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from pathlib import Path

from datasets.info import Samples
from datasets.sources.files import read_lines
from foreign_files.lines import is_header, same_name, separated, unquoted
from utils import UserError, counted

logger = logging.getLogger(__name__)

# What an image's name ends in; what is in it may differ.
EXTENSIONS = frozenset(
    ".bmp .dib .gif .jfif .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)
# Folders and files that systems and programs put beside one's own, as patterns of their names.
_CLUTTER = re.compile(
    r"\..*|@eadir|@syno.*|@__thumb|@recycle|@recently.*|@tmp|_gsdata_|_vti_cnf|#recycle|#snapshot|\$recycle\.bin|recycler|__macosx|"
    r"lost\+found|found\.\d{3}|system volume information|network trash folder|temporary items|"
    r"__pycache__|thumbs\.db|ehthumbs(_vista)?\.db|desktop\.ini|icon\r",
    re.IGNORECASE,
)
_ENDS = "|".join(re.escape(extension) for extension in EXTENSIONS)
# The path ends behind the last extension that a separator follows; what comes then may hold spaces.
_PATH_AND_LABEL = re.compile(rf"(.*(?:{_ENDS}))(?:\s*[,;]\s*|\s+)(.+)", re.IGNORECASE)


def is_clutter(name: str) -> bool:
    """Whether a folder or a file of this name is a system's (`@eaDir`, `__MACOSX`) or hidden."""
    return bool(_CLUTTER.fullmatch(name))


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def read_image_list(file: Path) -> Samples:
    """Reads lines `path [label]`, whose paths are relative to the file.

    A tab, a comma or double quotes may separate the two; without them the path ends with its
    extension, and the label may hold spaces. Without a label the image's folder names the class.

    Raises:
        UserError: The file cannot be read, or a line is something else.
    """
    paths, labels, clutter = [], [], []
    for number, line in enumerate(read_lines(file), 1):
        if not line:
            continue
        path, label = _path_and_label(f"{file}:{number}", line)
        found = _find(file.parent, path)
        if not paths and not os.path.exists(found):
            if is_header(line):
                continue
            _check_order(f"{file}:{number}", file.parent, line)
        if any(is_clutter(part) for part in Path(path).parts if part not in ("..", ".")):
            clutter.append(path)
            continue
        label = label or Path(path).parent.name
        if not label:
            raise UserError(
                f"{file}:{number}: {line} has neither a label nor a folder that names its class"
            )
        paths.append(found)
        labels.append(same_name(label))
    if clutter:
        logger.warning(
            "%s: left out %s of hidden files or of systems' folders, first %s",
            *(file, counted(len(clutter), "line"), clutter[0]),
        )
    return Samples(paths, labels)


def _path_and_label(where: str, line: str) -> tuple[str, str | None]:
    fields = separated(line)
    if fields is not None and len(fields) > 2 and any(fields[2:]):
        raise UserError(f"{where}: expected `path [label]`, found {len(fields)} columns")
    if fields is not None:
        path, label = [*fields, ""][:2]
    elif is_image(line):
        path, label = line, ""
    elif match := _PATH_AND_LABEL.fullmatch(line):
        path, label = match[1], unquoted(match[2])
    elif line.count(",") == 1:
        path, label = (field.strip() for field in line.split(","))
    else:
        path, label = [*line.rsplit(None, 1), ""][:2]
    return path, label or None


def _find(root: Path, path: str) -> str:
    """Where an image is; other systems write accents and folders otherwise."""
    if path.isascii() and "\\" not in path:
        return str(root / path)
    for spelling in (path, path.replace("\\", "/")):
        for form in ("NFC", "NFD"):
            for candidate in (spelling, unicodedata.normalize(form, spelling)):
                if os.path.exists(root / candidate):
                    return str(root / candidate)
    return str(root / path)


def _check_order(where: str, root: Path, line: str) -> None:
    """Refuses a list whose lines begin with the label."""
    label, _, path = line.replace("\t", " ").replace(",", " ").partition(" ")
    if is_image(path) and os.path.exists(root / path.strip()):
        raise UserError(f"{where}: expected `path [label]`, found the label {label!r} first")
