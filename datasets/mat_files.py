"""A program that reads a stranger's MATLAB file: `mat_files.py SOURCE TARGET.npz VARIABLE…`.

SciPy's reader may crash or ask for any amount of memory on a damaged file. So it is run in a
process with limits (`utils.read_isolated`), which hands on plain arrays.
"""

import os
import sys

# More than this, and more than 20 times the file, is a declaration without content behind it.
_FLOOR_BYTES = 2**30
_EXPANSION = 20


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
    memory = 8 * 2**30 + 4 * limit
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
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
