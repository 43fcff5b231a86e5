"""Mean and standard deviation of the channels, for data sets that publish none."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from datasets import checks
from datasets.batches.parallel import map_threads
from foreign_files import image_files
from utils import UserError, atomic_path, counted

logger = logging.getLogger(__name__)

Channels = tuple[float, float, float]

# In grey levels of 255. Images that differ by less hold nothing, and would be scaled beyond bounds.
_LEAST_STD = 1.0
# Photographs reach higher; values of another range than 0 to 255 do not.
_LEAST_MAXIMUM = 63


@dataclass(frozen=True)
class Statistics:
    """What is known of the values of some images.

    Attributes:
        mean: Mean of each channel over all pixels, 0 to 255.
        std: Standard deviation of each channel.
        maximum: The greatest value.
        doubtful: How many images are of one colour or nearly black.
        example: One of these, with what it is; empty if there are none.
    """

    mean: Channels
    std: Channels
    maximum: int
    doubtful: int = 0
    example: str = ""


def of_array(images: np.ndarray) -> Statistics:
    """Statistics of uint8 `(n, h, w, 3)`."""
    counts = [np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(3)]
    return of_counts(np.array(counts))


def of_files(name: str, paths: Sequence[str], kept: Path) -> Statistics:
    """The same over image files, as they are decoded, without resizing.

    Args:
        name: Of the data set, for messages.
        paths: The images, each of which is read once.
        kept: A file that keeps the result for the next time.

    Raises:
        UserError: Images cannot be decoded; all of them are listed on the log.
    """
    if (found := _read(kept)) is not None:
        return found
    counts, reasons, doubtful = examine(paths, "computing channel statistics")
    checks.report(name, reasons, len(paths), skip=False)
    found = replace(of_counts(counts), doubtful=len(doubtful), example="".join(doubtful[:1]))
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(kept) as temporary:
            temporary.write_text(json.dumps(asdict(found)))
    except OSError as error:
        logger.warning("%s: not kept for the next run (%s)", kept, error.strerror)
    return found


def examine(paths: Sequence[str], what: str) -> tuple[np.ndarray, list[str], list[str]]:
    """Decodes image files and counts their values.

    Args:
        paths: The images.
        what: Says beside the progress what is being done.

    Returns:
        How often each channel has each value, int64 `(3, 256)`; each file that cannot be decoded,
        with the reason; and each other one that is of one colour or nearly black.
    """
    counts, reasons, doubtful = np.zeros((3, 256), np.int64), [], []
    for path, result in zip(paths, map_threads(_histogram, paths, what), strict=True):
        if isinstance(result, UserError):
            reasons.append(str(result))
            continue
        counts += result
        if doubt := image_files.doubtful([_range(channel) for channel in result]):
            doubtful.append(f"{path}: {doubt}")
    return counts, reasons, doubtful


def usable(name: str, found: Statistics) -> tuple[Channels, Channels]:
    """Mean and standard deviation to normalise by, with a warning of what cannot be meant.

    Args:
        name: Of the data set.
        found: Of its training images.

    Returns:
        The mean, and the standard deviation, at least 1 grey level.
    """
    if found.doubtful:
        logger.warning(
            "%s: %s of one colour or nearly black, first %s; --check_data lists all",
            name,
            counted(found.doubtful, "training image is", "training images are"),
            found.example,
        )
    if found.maximum <= _LEAST_MAXIMUM:
        logger.warning(
            "%s: no value of the training images is above %d of 255: nearly black, or of another "
            "range than their format says; scale them to the whole range",
            *(name, found.maximum),
        )
    channels = zip(("red", "green", "blue"), found.std, strict=True)
    if flat := [channel for channel, std in channels if std < _LEAST_STD]:
        logger.warning(
            "%s: %s (nearly) the same in all pixels of the training images; divided by %g instead "
            "of the standard deviation",
            *(name, f"{', '.join(flat)} {'are' if len(flat) > 1 else 'is'}", _LEAST_STD),
        )
    return found.mean, tuple(max(std, _LEAST_STD) for std in found.std)


def _read(kept: Path) -> Statistics | None:
    """Statistics of an earlier run; `None` if they are not there, or not ours."""
    try:
        content = json.loads(kept.read_text())
        mean, std = (tuple(map(float, content[key])) for key in ("mean", "std"))
        counts = int(content["maximum"]), int(content["doubtful"]), str(content["example"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Statistics(mean, std, *counts) if len(mean) == len(std) == 3 else None


def _histogram(path: str) -> np.ndarray | UserError:
    try:
        with image_files.decoded_rgb(path) as image:
            return np.array(image.histogram(), np.uint32).reshape(3, 256)
    except UserError as error:
        return error


def _range(counts: np.ndarray) -> tuple[int, int]:
    """The smallest and the greatest value of a channel's histogram."""
    values = np.flatnonzero(counts)
    return int(values[0]), int(values[-1])


def of_counts(counts: np.ndarray) -> Statistics:
    """Exact statistics from how often each channel has each of the 256 values."""
    values = np.arange(256, dtype=np.float64)
    totals = counts.sum(axis=1)
    mean = counts @ values / totals
    variance = ((values - mean[:, None]) ** 2 * counts).sum(axis=1) / totals
    maximum = int(np.flatnonzero(counts.any(axis=0))[-1])
    return Statistics(tuple(mean.tolist()), tuple(np.sqrt(variance).tolist()), maximum)
