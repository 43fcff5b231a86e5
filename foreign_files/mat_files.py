"""A program that reads a stranger's MATLAB file: `mat_files.py SOURCE TARGET.npz VARIABLE…`.

SciPy's reader may crash or ask for any amount of memory on a damaged file. So it is run in a
process with limits (`read_isolated`), which hands on plain arrays.
"""

import math
import os
import sys

# More than this, and more than 20 times the file, is a declaration without content behind it.
_FLOOR_BYTES = 2**30
_EXPANSION = 20
# As `scipy.io.whosmat` names them; all others take 8 bytes, cells and structs at least.
_ITEM_BYTES = {
    "int8": 1, "uint8": 1, "logical": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4,
    "single": 4, "char": 4,
}  # fmt: skip


def main(source: str, target: str, *names: str) -> None:
    """Writes the variables that are there as arrays of numbers or text (see `files.read_mat`)."""
    try:
        _convert(source, target, names)
    except Exception as error:  # a damaged file raises nearly anything
        sys.exit(" ".join(str(error).split()) or type(error).__name__)


def _convert(source: str, target: str, names: tuple[str, ...]) -> None:
    import resource

    import numpy as np
    import scipy.io

    limit = max(_FLOOR_BYTES, _EXPANSION * os.path.getsize(source))
    # The interpreter and its libraries, and the file's content twice: unpacked and as arrays.
    memory = 2**30 + 3 * limit
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    # The sizes are known before the content is unpacked.
    for name, shape, kind in scipy.io.whosmat(source):
        if name in names and math.prod(shape) * _ITEM_BYTES.get(kind, 8) > limit:
            raise ValueError(f"{name} is declared far larger than the file")
    content = scipy.io.loadmat(source, variable_names=names)
    arrays = {}
    for name in content.keys() & set(names):
        value = content[name]
        if not isinstance(value, np.ndarray):
            raise TypeError(f"{name} should be a plain array, is a {type(value).__name__}")
        fields = value.dtype.names
        if fields is None:
            arrays[name] = value
        else:
            arrays |= {f"{name}.{field}": value[field] for field in fields}
    for name, value in arrays.items():
        if value.dtype.kind == "O":
            value = arrays[name] = _items(name, value)
        if value.dtype.kind not in "biufU":
            raise TypeError(f"{name} should hold numbers or text, is {value.dtype}")
    if sum(array.nbytes for array in arrays.values()) > limit:
        raise ValueError("it declares far larger arrays than it holds")
    np.savez(target, **arrays)


def _items(name: str, cells):
    """What the cells of an array of objects hold, one each."""
    import numpy as np

    try:
        return np.array([np.asarray(cell).item() for cell in cells.ravel()])
    except ValueError:
        raise ValueError(f"{name} should hold single values") from None


if __name__ == "__main__":
    main(*sys.argv[1:])
