"""Pickles of arrays and plain containers, without running what a pickle asks for."""

import mmap
import os
import pickle
import pickletools
from types import MappingProxyType
from typing import Any, BinaryIO

from foreign_files.regular import check_regular, short_reason
from utils import UserError


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """What Python 3 writes byte strings as in protocol 2; other codecs make much of little."""
    if encoding != "latin1":
        raise ValueError(f"bytes in the encoding {encoding!r:.40}")
    return text.encode("latin1")


def _empty_array(*_: Any) -> Any:
    """What NumPy writes an array as, before its content; a hostile file would name a size."""
    import numpy as np

    return np.empty(0, np.uint8)


class _RestrictedUnpickler(pickle.Unpickler):
    """Admits NumPy arrays, NumPy scalars and plain containers; refuses every other global."""

    _ADMITTED = frozenset(
        {
            ("builtins", "set"),
            ("__builtin__", "set"),
            ("collections", "OrderedDict"),
            ("numpy", "dtype"),
            ("numpy.core.multiarray", "scalar"),
            ("numpy.core.numeric", "_frombuffer"),
            ("numpy._core.numeric", "_frombuffer"),  # protocol 5
            ("numpy._core.multiarray", "scalar"),
        }
    )

    _REPLACED = MappingProxyType(
        {
            ("_codecs", "encode"): _latin1,
            ("numpy", "ndarray"): "ndarray",  # only an argument of the next
            ("numpy.core.multiarray", "_reconstruct"): _empty_array,
            ("numpy._core.multiarray", "_reconstruct"): _empty_array,
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._REPLACED:
            return self._REPLACED[module, name]
        if (module, name) not in self._ADMITTED:
            raise UserError(f"refused: it asks for {module}.{name}, which a data file never needs")
        # NumPy 2 renamed `numpy.core`; the old name warns.
        return super().find_class(module.replace("numpy.core.", "numpy._core."), name)


def load_pickle(path: str | os.PathLike, *, encoding: str = "bytes") -> Any:
    """Reads a foreign pickle that holds only NumPy arrays and plain containers.

    Args:
        path: The file.
        encoding: How Python 2 strings are decoded; `"bytes"` keeps them as they are.

    Raises:
        UserError: The file cannot be read, is no pickle, asks for anything that could run code, or
            declares more than it holds.
    """
    check_regular(path)
    try:
        with open(path, "rb") as file:
            _check_declared(file)
            file.seek(0)
            return _RestrictedUnpickler(file, encoding=encoding).load()
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except MemoryError:
        raise UserError(f"{path}: not a pickle of arrays: it declares an impossible size") from None
    except Exception as error:  # a damaged pickle raises nearly anything
        raise UserError(f"{path}: damaged or not a pickle ({short_reason(error)})") from None


def _check_declared(file: BinaryIO) -> None:
    """Refuses numbers in a pickle that let the unpickler ask for more memory than the file has.

    Raises:
        ValueError: There is one, or it is no pickle.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        # A string that is longer than the file is an error of `genops`.
        for count, (opcode, argument, position) in enumerate(pickletools.genops(content)):
            # Picklers number what they memorise from 0 or 1 on, and the unpickler makes a table.
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= argument <= count:
                raise ValueError(f"it memorises object {argument} in operation {count}")
            if opcode.name == "FRAME" and argument > len(content) - position:
                raise ValueError(f"it declares {argument} bytes, more than the file has")
