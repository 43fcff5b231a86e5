"""The data sets: where the images and labels are, and how a batch is made from them."""

import contextlib
from collections.abc import Callable, Iterator

from datasets.augmentation import AUGMENTATIONS, FLIPS, Mixing, Policy
from datasets.info import CACHE_MODES, DatasetSpec, Validation
from datasets.registry import check_dataset, dataset_names, load_dataset
from datasets.sources.class_lists import ClassList, read_class_list
from utils import UserError

__all__ = [
    "AUGMENTATIONS",
    "CACHE_MODES",
    "FLIPS",
    "ClassList",
    "DatasetSpec",
    "Mixing",
    "Policy",
    "Validation",
    "check_dataset",
    "dataset_names",
    "load_dataset",
    "read_class_list",
    "reading_errors",
]


@contextlib.contextmanager
def reading_errors(*batches, advice: Callable[[], str] = str) -> Iterator[None]:
    """Raises what a reading thread met, with the file's name, and not the backend's wrapping of it.

    Args:
        batches: The `BatchSequence`s that are read within the context.
        advice: What to add to a message of a file that cannot be read.
    """
    try:
        yield
    except Exception:
        for sequence in batches:
            if isinstance(sequence.error, UserError):
                raise type(sequence.error)(f"{sequence.error}{advice()}") from None
            if sequence.error is not None:
                raise sequence.error from None
        raise
