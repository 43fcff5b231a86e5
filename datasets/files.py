"""Reading the text and MATLAB files in which data sets list their images."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

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

    A byte-order mark, as editors on Windows write it, is no part of the first.

    Raises:
        UserError: The file cannot be read, or is no UTF-8 text.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            return [line.strip() for line in file]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8") from None


def read_class_list(path: str | os.PathLike) -> dict[str, str | None]:
    """The classes in a file of lines `ID [NAME]`: their names by id, in the order of the lines.

    A name may contain spaces; of a line with only an id it is `None`.

    Raises:
        UserError: The file cannot be read, is no UTF-8 text, lists no class or one twice.
    """
    names = {}
    for line in filter(None, read_lines(path)):
        class_id, *name = line.split(None, 1)
        if class_id in names:
            raise UserError(f"{path}: class {class_id} is listed more than once")
        names[class_id] = name[0] if name else None
    if not names:
        raise UserError(f"{path}: lists no classes; expected lines that begin with an id")
    return names


def read_mat(
    path: str | os.PathLike, *variables: str, optional: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """Reads the named variables of a MATLAB file, and the optional ones that are there.

    Raises:
        UserError: The file cannot be read, lacks one of the variables, or has a sparse one.
    """
    import numpy as np
    import scipy.io

    try:
        content = scipy.io.loadmat(path, variable_names=variables + optional)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # a damaged file raises nearly anything
        raise UserError(
            f"{path}: damaged or not a MATLAB file ({error or type(error).__name__})"
        ) from None
    for variable in variables:
        if variable not in content:
            raise UserError(f"{path}: has no variable {variable}; is it the official file?")
    for name in {*variables, *optional} & content.keys():
        if not isinstance(content[name], np.ndarray):
            raise UserError(
                f"{path}: {name} should be a plain array, is a {type(content[name]).__name__}"
            )
    return content


def read_mat_integers(path: str | os.PathLike, *variables: str) -> dict[str, np.ndarray]:
    """Reads variables of a MATLAB file that are integers, whatever their type, each as `(n,)`.

    Raises:
        UserError: As `read_mat`, or a variable is something else.
    """
    numbers = {}
    for name, values in ((name, read_mat(path, name)[name]) for name in variables):
        if not are_integers(values):
            raise UserError(f"{path}: {name} should be integers, is {values.dtype}")
        numbers[name] = values.ravel().astype(int)
    return numbers


def are_integers(values: np.ndarray) -> bool:
    """Whether numbers are whole, whatever their type."""
    import numpy as np

    if values.dtype.kind == "f":
        return bool(np.all(np.isfinite(values) & (values == np.round(values))))
    return values.dtype.kind in "iu"
