"""Decoded images kept in memory or on disk, so that later epochs only crop, flip and erase."""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import PIL

import resizing
from datasets.batches.parallel import map_threads
from foreign_files import image_files
from utils import UserError, atomic_path

logger = logging.getLogger(__name__)

# Change it when the same key would mean other bytes.
_FORMAT = 3
_DIGEST_BYTES = 32
_SAMPLES_FOR_ESTIMATE = 256


class PixelStore:
    """Decoded images of one split, one after the other in one buffer.

    Args:
        index: int64 `(n, 3)`: height, width, and whether the image could be decoded.
        pixels: uint8, all images in turn.
        smaller_side: The smaller side they were resized to, `None` if they are as decoded.
    """

    def __init__(self, index: np.ndarray, pixels: np.ndarray, smaller_side: int | None):
        self.smaller_side = smaller_side
        self._index = index
        self._pixels = pixels
        self._starts = _starts(index)
        self._positions = np.arange(len(index))

    def __getitem__(self, i: int) -> np.ndarray:
        """Image `(height, width, 3)`, not to be written to."""
        position = self._positions[i]
        height, width, _ = self._index[position]
        pixels = self._pixels[self._starts[position] : self._starts[position + 1]]
        return pixels.reshape(height, width, 3)

    def take(self, chosen: np.ndarray) -> "PixelStore":
        """The images at the positions `chosen`; shares the memory."""
        store = PixelStore(self._index, self._pixels, self.smaller_side)
        store._positions = self._positions[chosen]
        return store

    def bad(self) -> list[int]:
        """Positions of the images that could not be decoded."""
        return np.flatnonzero(self._index[self._positions, 2] == 0).tolist()


def files_key(paths: Sequence[str], **preprocessing) -> str:
    """A key that changes with the files (path, size, time of change) and the preprocessing."""

    def facts(path: str) -> tuple:
        try:
            status = os.stat(path)
        except OSError:
            return path, None, None
        return os.path.abspath(path), status.st_size, status.st_mtime_ns

    content = [_FORMAT, PIL.__version__, preprocessing, [facts(path) for path in paths]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def available_memory() -> int:
    """Bytes that can still be used, within the limits of the machine and of its container."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        facts = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        limits.append(facts["MemAvailable"])
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())  # "max" where there is none
        limits.append(limit - int((group / "memory.current").read_text()))
    return max(0, min(limits))


def is_on_disk(
    paths: Sequence[str],
    smaller_side: int | None,
    directory: Path,
    name: str,
    *,
    exif_rotation: bool = False,
    only_shrink: bool = False,
) -> bool:
    """Whether an earlier run left these images decoded; arguments as for `build_store`."""
    try:
        file = _file_for(paths, smaller_side, directory, name, exif_rotation, only_shrink)
        return _open_file(file, len(paths), smaller_side) is not None
    except OSError:
        return False


def _file_for(
    paths: Sequence[str],
    smaller_side: int | None,
    directory: Path,
    name: str,
    exif_rotation: bool,
    only_shrink: bool,
) -> Path:
    options = {"only_shrink": True} if only_shrink else {}  # older files have keys without it
    key = files_key(paths, smaller_side=smaller_side, exif_rotation=exif_rotation, **options)
    return directory / f"{name}-{key}.pixels"


def choose_mode(parts: Sequence[tuple[Sequence[str], int | None, bool]]) -> str:
    """What `auto` means for these images: `ram` if they fit in half of the free memory.

    Args:
        parts: Of each split: paths, and `smaller_side` and `only_shrink` as for `build_store`.
    """
    needed = 0
    for paths, smaller_side, only_shrink in parts:
        step = max(1, len(paths) // _SAMPLES_FOR_ESTIMATE)
        sampled = paths[::step]
        stored = _starts(_read_sizes(sampled, smaller_side, False, only_shrink))[-1]
        needed += int(stored) * len(paths) / len(sampled)
    free = available_memory()
    chosen = "ram" if needed <= free / 2 else "none"
    logger.info(
        "cache: %s, since the decoded images would take about %s and %s are free",
        *(chosen, _in_words(needed), _in_words(free)),
    )
    return chosen


def build_store(
    paths: Sequence[str],
    smaller_side: int | None,
    directory: Path,
    name: str,
    *,
    mode: str,
    exif_rotation: bool = False,
    only_shrink: bool = False,
) -> PixelStore:
    """Decodes images, or finds them decoded on disk.

    Args:
        paths: The image files.
        smaller_side: Resize them so; `None` keeps the decoded resolution.
        directory: Where the disk form is.
        name: Of the data set and split, for messages and file names.
        mode: `"ram"` or `"disk"`.
        exif_rotation: Turn the images upright as their EXIF data say.
        only_shrink: Leave smaller images as they are decoded.

    Raises:
        UserError: There is not enough memory or disk space, or the directory cannot be written.
    """
    if mode == "ram":
        index = _read_sizes(paths, smaller_side, exif_rotation, only_shrink)
        needed = int(_starts(index)[-1])
        if needed > (free := available_memory()):
            raise UserError(
                f"--cache ram: the decoded images of {name} take {_in_words(needed)}, "
                f"but only {_in_words(free)} are free; use --cache disk or none"
            )
        pixels = np.empty(needed, np.uint8)
        _decode_into(pixels, index, paths, name, exif_rotation)
        return PixelStore(index, pixels, smaller_side)

    file = _file_for(paths, smaller_side, directory, name, exif_rotation, only_shrink)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # Of several runs that need it one builds it; the others wait and find it.
        with _locked(file.with_suffix(".lock")):
            _remove_abandoned_parts(directory)
            store = _open_file(file, len(paths), smaller_side)
            # What could not be read then (a share that was away, say) may be there now.
            if store is None or any(_can_be_decoded(paths[i]) for i in store.bad()):
                index = _read_sizes(paths, smaller_side, exif_rotation, only_shrink)
                _build_file(file, paths, index, name, exif_rotation)
                store = _open_file(file, len(paths), smaller_side)
    except OSError as error:
        raise UserError(f"--cache_dir {directory}: {error.strerror or error}") from None
    return store


def _open_file(file: Path, count: int, smaller_side: int | None) -> PixelStore | None:
    """A file's images: the index's digest, the index, the pixels.

    `None` if it is not there, not whole, or its index is damaged.
    """
    if not file.exists():
        return None
    with open(file, "rb") as opened:
        digest, content = opened.read(_DIGEST_BYTES), opened.read(count * 3 * 8)
    if len(content) != count * 3 * 8 or _digest(content) != digest:
        return None
    index = np.frombuffer(content, np.int64).reshape(count, 3)
    begin = _DIGEST_BYTES + index.nbytes
    if (index < 0).any() or file.stat().st_size != begin + _starts(index)[-1]:
        return None
    return PixelStore(index, np.memmap(file, np.uint8, "r")[begin:], smaller_side)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _can_be_decoded(path: str) -> bool:
    try:
        image_files.load_rgb(path)
    except UserError:
        return False
    return True


def _remove_abandoned_parts(directory: Path) -> None:
    """Removes what killed builds left, of any data set: those whose locks nobody holds."""
    for part in directory.glob(".*.pixels"):
        key = part.name[1:].split(".")[0]
        with _locked(directory / f"{key}.lock", wait=False) as held:
            if held:
                part.unlink(missing_ok=True)


def _build_file(
    file: Path, paths: Sequence[str], index: np.ndarray, name: str, exif_rotation: bool
) -> None:
    begin = _DIGEST_BYTES + index.nbytes
    needed = begin + int(_starts(index)[-1])
    # A build that was killed leaves its part; only the holder of the lock writes here.
    for part in file.parent.glob(f".{file.stem}.*"):
        part.unlink(missing_ok=True)
    if needed > (free := shutil.disk_usage(file.parent).free):
        raise UserError(
            f"--cache_dir {file.parent}: the decoded images of {name} take {_in_words(needed)}, "
            f"but only {_in_words(free)} are free; use another directory, or --cache none"
        )
    with atomic_path(file) as temporary:
        if hasattr(os, "posix_fallocate"):
            # A mapped file that meets a full disk only later kills the process.
            with open(temporary, "rb+") as opened:
                os.posix_fallocate(opened.fileno(), 0, needed)
        whole = np.memmap(temporary, np.uint8, "r+", shape=(needed,))
        _decode_into(whole[begin:], index, paths, name, exif_rotation)
        content = index.tobytes()
        whole[:begin] = np.frombuffer(_digest(content) + content, np.uint8)
        whole.flush()
    logger.info("cache: %s of decoded images in %s", _in_words(needed), file)


def _in_words(size: float) -> str:
    """Bytes, as in `2.5 GB`, `0.3 MB` or `20 kB`."""
    if size < 1e5:
        return f"{size / 1e3:.0f} kB"
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _starts(index: np.ndarray) -> np.ndarray:
    """Where each image begins in the buffer, and where the last ends."""
    return np.concatenate([[0], np.cumsum(index[:, 0] * index[:, 1] * 3)])


def _read_sizes(
    paths: Sequence[str], smaller_side: int | None, exif_rotation: bool, only_shrink: bool
) -> np.ndarray:
    """An index in which no image is decoded yet."""
    resized_size = resizing.shrunk_size if only_shrink else resizing.resized_size

    def stored_size(path: str) -> tuple[int, int]:
        try:
            width, height = image_files.image_size(path, exif_rotation=exif_rotation)
        except UserError:
            return 0, 0
        if smaller_side is not None:
            width, height = resized_size(width, height, smaller_side)
        return height, width

    sizes = map_threads(stored_size, paths, "reading image sizes")
    return np.array([(*size, 0) for size in sizes], np.int64).reshape(-1, 3)


def _decode_into(
    pixels: np.ndarray, index: np.ndarray, paths: Sequence[str], name: str, exif_rotation: bool
) -> None:
    """Fills the buffer, and marks in the index what could be decoded."""
    starts = _starts(index)

    def decode(i: int) -> None:
        height, width, _ = index[i].tolist()
        if not height:
            return
        target = pixels[starts[i] : starts[i + 1]].reshape(height, width, 3)
        try:
            with image_files.decoded_rgb(paths[i], exif_rotation=exif_rotation) as image:
                target[...] = resizing.resize_region(image, (width, height), 0, 0, width, height)
        except UserError:
            return
        index[i, 2] = 1

    map_threads(decode, range(len(paths)), f"decoding {name}")


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Holds a lock file; the system releases it when the process ends, however it ends.

    Args:
        path: The lock file.
        wait: Wait for another holder, instead of yielding `False`.

    Yields:
        Whether it is held.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows, where two runs at worst do the work twice
        yield wait
        return
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        except BlockingIOError:
            held = False
        yield held
