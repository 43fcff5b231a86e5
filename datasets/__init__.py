"""The data sets: where the images and labels are, and how a batch is made from them."""

import contextlib
from collections.abc import Iterator

from datasets.info import CACHE_MODES, DatasetSpec, Validation
from datasets.registry import check_dataset, dataset_names, load_dataset
from datasets.sources.class_lists import ClassList, read_class_list

__all__ = [
    "CACHE_MODES",
    "ClassList",
    "DatasetSpec",
    "Validation",
    "check_dataset",
    "dataset_names",
    "load_dataset",
    "read_class_list",
    "reading_errors",
]


@contextlib.contextmanager
def reading_errors(*batches) -> Iterator[None]:
    """Raises what a reading thread met, with the file's name, and not the backend's wrapping of it.

    Args:
        batches: The `BatchSequence`s that are read within the context.
    """
    try:
        yield
    except Exception:
        for sequence in batches:
            if sequence.error is not None:
                raise sequence.error from None
        raise
