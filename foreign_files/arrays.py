"""`.npz` archives of plain arrays."""

import os
import zipfile
from collections.abc import Iterable
from typing import Any

from foreign_files.regular import check_regular, short_reason
from utils import UserError

# An archive of a few kilobytes can hold gigabytes of zeros; what is legitimately that large does
# not shrink that much.
_NPZ_BYTES = 2**30
_NPZ_EXPANSION = 20


def load_npz(path: str | os.PathLike, required: Iterable[str]) -> dict[str, Any]:
    """Reads all arrays of an `.npz` file; arrays of Python objects, which are pickles, are refused.

    Args:
        path: The file.
        required: Names of arrays that must be there.

    Raises:
        UserError: The file cannot be read, is damaged or no `.npz`, or lacks an array.
    """
    import numpy as np

    check_regular(path)
    try:
        # NumPy leaves a file open that it opened itself and then found to be damaged.
        with open(path, "rb") as file:
            with zipfile.ZipFile(file) as members:
                declared = sum(member.file_size for member in members.infolist())
            if declared > max(_NPZ_BYTES, _NPZ_EXPANSION * os.fstat(file.fileno()).st_size):
                raise ValueError(f"it would take {declared / 2**30:.0f} GiB of memory")
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # a damaged archive raises nearly anything
        raise UserError(
            f"{path}: damaged or not an .npz of plain arrays ({short_reason(error)})"
        ) from None
    missing = [name for name in required if name not in arrays]
    if missing:
        raise UserError(
            f"{path}: not the expected kind of .npz: it has no array {' or '.join(missing)}, "
            f"only {', '.join(arrays) or 'none'}"
        )
    return arrays
