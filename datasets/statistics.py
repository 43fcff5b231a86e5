"""Mean and standard deviation of the channels, for data sets that publish none."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets import checks
from datasets.batches.parallel import map_threads
from foreign_files import image_files
from utils import UserError, atomic_path

logger = logging.getLogger(__name__)

Channels = tuple[float, float, float]


def of_array(images: np.ndarray) -> tuple[Channels, Channels]:
    """Mean and standard deviation of each channel over all pixels of uint8 `(n, h, w, 3)`."""
    counts = [np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(3)]
    return _of_counts(np.array(counts))


def of_files(name: str, paths: Sequence[str], kept: Path) -> tuple[Channels, Channels]:
    """The same over image files, as they are decoded, without resizing.

    Args:
        name: Of the data set, for messages.
        paths: The images, each of which is read once.
        kept: A file that keeps the result for the next time.

    Raises:
        UserError: Images cannot be decoded; all of them are listed on the log.
    """
    try:
        content = json.loads(kept.read_text())
        return tuple(map(float, content["mean"])), tuple(map(float, content["std"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # Not there, or not ours: made anew.
    counts, reasons = np.zeros((3, 256), np.int64), []
    for result in map_threads(_histogram, paths, "computing channel statistics"):
        if isinstance(result, UserError):
            reasons.append(str(result))
        else:
            counts += result
    checks.report(name, reasons, len(paths), skip=False)
    mean, std = _of_counts(counts)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(kept) as temporary:
            temporary.write_text(json.dumps({"mean": mean, "std": std}))
    except OSError as error:
        logger.warning("%s: not kept for the next run (%s)", kept, error.strerror)
    return mean, std


def _histogram(path: str) -> np.ndarray | UserError:
    try:
        return np.array(image_files.load_rgb(path).histogram()).reshape(3, 256)
    except UserError as error:
        return error


def _of_counts(counts: np.ndarray) -> tuple[Channels, Channels]:
    """From how often each channel has each of the 256 values: exact, without any float image."""
    values = np.arange(256, dtype=np.float64)
    totals = counts.sum(axis=1)
    mean = counts @ values / totals
    variance = ((values - mean[:, None]) ** 2 * counts).sum(axis=1) / totals
    return tuple(mean.tolist()), tuple(np.sqrt(variance).tolist())
