"""Reading the text and MATLAB files in which data sets list their images."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from foreign_files import load_mat, read_text
from utils import UsageError, UserError

if TYPE_CHECKING:
    import numpy as np


def exists(path: str | os.PathLike) -> bool:
    """Whether there is a file or a directory.

    Raises:
        UsageError: A directory above it cannot be searched.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        directory, name = os.path.split(os.path.abspath(path))
        raise UsageError(
            f"{directory}: cannot look for {name} in it ({error.strerror}); "
            "make the directory readable, or name another"
        ) from None
    return True


def read_lines(path: str | os.PathLike) -> list[str]:
    """The lines of a text file, without surrounding spaces; empty ones stay.

    Raises:
        UserError: The file cannot be read, is too large, or is no UTF-8 text.
    """
    return [line.strip() for line in read_text(path).removesuffix("\n").split("\n")]


def read_mat(
    path: str | os.PathLike, *variables: str, optional: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """Reads the named variables of a MATLAB file, and the optional ones that are there.

    Returns:
        Arrays of numbers or text by the variables' names. A struct array has one `(n,)` for each
        of its fields, by `variable.field`; the items of a cell array make an array `(n,)`.

    Raises:
        UserError: The file cannot be read, lacks one of the variables, or one is something else.
    """
    content = load_mat(path, *variables, *optional)
    for variable in variables:
        if not any(name.split(".")[0] == variable for name in content):
            raise UserError(f"{path}: has no variable {variable}; is it the official file?")
    return content


def read_mat_integers(path: str | os.PathLike, *variables: str) -> dict[str, np.ndarray]:
    """Reads variables of a MATLAB file that are integers, whatever their type, each as `(n,)`.

    Raises:
        UserError: As `read_mat`, or a variable is something else.
    """
    numbers = read_mat(path, *variables)
    for name in variables:
        values = numbers.get(name)
        if values is None or not are_integers(values):
            found = "a struct" if values is None else values.dtype
            raise UserError(f"{path}: {name} should be integers, is {found}")
        numbers[name] = values.ravel().astype(int)
    return numbers


def are_integers(values: np.ndarray) -> bool:
    """Whether numbers are whole, whatever their type, and none is beyond ±2^53."""
    import numpy as np

    if values.dtype.kind not in "fiu":
        return False
    return bool(np.all((np.abs(values) <= 2.0**53) & (values == np.round(values))))
