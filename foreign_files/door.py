"""This side of the door: asks a child process for the content of a file, and checks the answer."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from foreign_files.child import program
from foreign_files.regular import check_regular
from utils import UserError

if TYPE_CHECKING:
    import numpy as np

# Seconds; the largest networks' weights take a few.
READ_TIMEOUT = 60
_KINDS = {
    "npz": "an .npz of plain arrays",
    "pickles": "a pickle of arrays",
    "mat": "a MATLAB file of plain arrays",
    "hdf5": "a weight file",
    "onnx_model": "an ONNX file that ONNX Runtime can compute",
    "litert_model": "a LiteRT file that its runtime can compute",
}
# These need the standard library alone, which starts in a tenth of the time.
_PLAIN = ("npz", "pickles")
_DTYPE = re.compile(r"[<>|=]?([biufUS])([1-9][0-9]{0,5})")


def load_npz(path: str | os.PathLike, required: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """Reads all arrays of an `.npz` file; arrays of Python objects, which are pickles, are refused.

    Args:
        path: The file.
        required: Names of arrays that must be there.

    Raises:
        UserError: The file cannot be read, is damaged or no `.npz`, or lacks an array.
    """
    arrays = _read("npz", path)
    missing = [name for name in required if name not in arrays]
    if missing:
        raise UserError(
            f"{path}: not the expected kind of .npz: it has no array {' or '.join(missing)}, "
            f"only {', '.join(arrays) or 'none'}"
        )
    return arrays


def load_pickle(path: str | os.PathLike) -> dict[str, np.ndarray | list[str]]:
    """Reads a pickled dictionary of arrays and lists, without running what the pickle asks for.

    Returns:
        The entries that are arrays, or lists of numbers (as arrays) or of texts. Byte strings of
        Python 2 become text. Entries of other kinds are left out.

    Raises:
        UserError: The file cannot be read, is no pickle of a dictionary, or asks for anything
            that a data file never needs.
    """
    return _read("pickles", path)


def load_mat(path: str | os.PathLike, *variables: str) -> dict[str, np.ndarray]:
    """Reads those of the named variables that a MATLAB file has.

    Returns:
        Arrays of numbers or text by the variables' names. A struct array has one `(n,)` for each
        of its fields, by `variable.field`; the items of a cell array make an array `(n,)`.

    Raises:
        UserError: The file cannot be read, or one of the variables is something else.
    """
    return _read("mat", path, *variables)


def load_weights(path: str | os.PathLike) -> tuple[dict[str, list[np.ndarray]], str | None]:
    """Reads the weights of a network by the names of its layers.

    Args:
        path: `.keras` or `.weights.h5` of Keras 3, or an HDF5 file of Keras 2 with weights or a
            whole model.

    Returns:
        The arrays of each layer, in the order of its variables, and the configuration of a
        `.keras` file, which is JSON, or `None`.

    Raises:
        UserError: The file cannot be read, or is damaged or hostile.
    """
    content = _read("hdf5", path)
    config = content.pop("config", [None])
    names, counts = content.pop("layers"), content.pop("counts")
    arrays = iter(content.values())
    layers = {name: [next(arrays) for _ in range(n)] for name, n in zip(names, counts, strict=True)}
    return layers, config[0]


def try_model(path: str | os.PathLike, kind: str, name: str) -> str | None:
    """Has an exported model's runtime compute a black image, within the limits of a child.

    Args:
        path: The file.
        kind: `onnx_model` or `litert_model`, whose runtime has to be installed.
        name: Of a text among its metadata.

    Returns:
        The text, or `None`, and then nothing was computed.

    Raises:
        UserError: The file cannot be read, or loading and computing it fails, crashes the runtime,
            takes far more memory than the file suggests or too long.
    """
    texts = _read(kind, path, name)["facts"]
    return texts[0] if texts else None


def _read(kind: str, path: str | os.PathLike, *names: str) -> dict[str, Any]:
    """Everything that a child of that kind finds in a file, arrays and lists of text by name."""
    check_regular(path)
    try:
        with open(path, "rb") as file:
            limit = program.limit(os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    refused = f"{path}: damaged or not {_KINDS[kind]}"
    command = [sys.executable, "-I", *(["-S"] if kind in _PLAIN else []), program.__file__, kind]
    with tempfile.TemporaryDirectory() as directory:
        answer = Path(directory, "answer")
        try:
            # Of many threads each would reserve memory, of which the child allows itself little.
            done = subprocess.run(
                [*command, os.path.abspath(path), answer, *names],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=READ_TIMEOUT,
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"{path}: damaged: reading it does not come to an end") from None
        try:
            if done.returncode:
                raise ValueError("reading it fails")
            with open(answer, "rb") as file:
                return _checked(file, limit)
        except Exception as error:  # nor is what the child says to be trusted
            reason = str(error)[:300] or type(error).__name__
            if reason.startswith("refused"):
                raise UserError(f"{path}: {reason}") from None
            raise UserError(f"{refused} ({reason})") from None


def _checked(file: BinaryIO, limit: int) -> dict[str, Any]:
    """The arrays and texts of an answer.

    Raises:
        ValueError: The child refuses the file, or the sizes that it names are not those it sent.
    """
    import numpy as np

    header = json.loads(file.readline(program.MAX_HEADER))
    if "error" in header:
        raise ValueError(header["error"])
    content: dict[str, Any] = dict(header["texts"])
    left = os.fstat(file.fileno()).st_size - file.tell()
    for name, (dtype, shape, order) in header["arrays"].items():
        kind = _DTYPE.fullmatch(dtype)
        if not kind:
            raise ValueError(f"{name} holds neither numbers nor text")
        if len(shape) > 32 or not all(type(length) is int and length >= 0 for length in shape):
            raise ValueError(f"{name} has no possible shape")
        count = math.prod(shape)
        size = count * int(kind[2]) * (4 if kind[1] == "U" else 1)
        # Whoever computes with numbers makes them 8 bytes each.
        limit -= max(size, 8 * count)
        left -= size
        if limit < 0 or left < 0:
            raise ValueError("it declares far larger arrays than it holds")
        array = np.empty(count, dtype)
        file.readinto(array.view(np.uint8))
        content[name] = array.reshape(shape, order=order)
    return content
