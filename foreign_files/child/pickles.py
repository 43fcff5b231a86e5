"""Reads pickles of arrays and plain containers, without running what a pickle asks for.

NumPy is not among what it may ask for: arrays and types are told apart from what the pickle says
of them, so that their sizes are those of the bytes that are there.
"""

import array
import collections
import pickle
import re
import struct


def read(source):
    """The entries of a pickled dictionary that are arrays, or lists of numbers or of text."""
    with open(source, "rb") as file:
        content = _RestrictedUnpickler(file, encoding="bytes").load()
    if not isinstance(content, dict):
        raise TypeError(f"expected a dictionary, found a {type(content).__name__}")
    arrays, texts = {}, {}
    for key, value in content.items():
        if isinstance(value, _Array) and isinstance(value.data, list):
            value = value.data
        if isinstance(value, _Array):
            arrays[_text(key)] = value.dtype, value.shape, value.order, value.data
        elif isinstance(value, list | tuple):
            kinds = set(map(type, value))
            if kinds <= {bytes, str}:
                texts[_text(key)] = list(map(_text, value))
            elif kinds <= {int, float}:
                code = "d" if float in kinds else "q"
                data = array.array(code, value).tobytes()
                arrays[_text(key)] = "f8" if code == "d" else "i8", [len(value)], "C", data
    return arrays, texts


def _text(value):
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _latin1(text, encoding="latin1"):
    """What Python 3 writes byte strings as in protocol 2; other codecs make much of little."""
    if encoding != "latin1":
        raise ValueError(f"bytes in the encoding {encoding!r:.40}")
    return text.encode("latin1")


class _Type:
    """`numpy.dtype`."""

    def __init__(self, name, *_):
        self.name = _text(name)
        if not re.fullmatch("[biufSU][1-9][0-9]*|O8?", self.name):
            raise ValueError(f"an array of the type {self.name:.20}")

    def __setstate__(self, state):
        if _text(state[1]) == ">":
            self.name = ">" + self.name


class _Array:
    """`numpy.ndarray`."""

    dtype, shape, order, data = "u1", (0,), "C", b""

    def __setstate__(self, state):
        _, self.shape, kind, fortran, self.data = state
        self.dtype, self.order = kind.name, "F" if fortran else "C"
        # Lists are the items of an array of objects.
        if not isinstance(self.data, list | bytes | bytearray):
            raise TypeError("an array without its content")


def _reconstruct(*_):
    """What NumPy writes an array as, before its content; a hostile file would name a size."""
    return _Array()


def _from_buffer(data, kind, shape, order):
    made = _Array()
    made.__setstate__((1, shape, kind, order == "F", data))
    return made


def _scalar(kind, data):
    name = kind.name
    if name[0] in "SU":
        return data.decode("utf-32-le") if name[0] == "U" else data
    codes = {"b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H",
             "u4": "I", "u8": "Q", "f2": "e", "f4": "f", "f8": "d"}  # fmt: skip
    return struct.unpack((">" if name[0] == ">" else "<") + codes[name[-2:]], data)[0]


_ADMITTED = {
    ("_codecs", "encode"): _latin1,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): "ndarray",  # only an argument of `_reconstruct`
    ("numpy.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.multiarray", "scalar"): _scalar,
    ("numpy.numeric", "_frombuffer"): _from_buffer,  # protocol 5
}


class _RestrictedUnpickler(pickle.Unpickler):
    """Admits NumPy arrays, NumPy scalars and plain containers; refuses every other global."""

    def find_class(self, module, name):
        # NumPy 2 renamed `numpy.core`.
        key = re.sub(r"^numpy\._?core\.", "numpy.", module), name
        if key not in _ADMITTED:
            raise ValueError(f"refused: it asks for {module}.{name}, which a data file never needs")
        return _ADMITTED[key]
