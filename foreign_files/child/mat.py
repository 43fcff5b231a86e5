"""Reads variables of MATLAB files."""

import numpy as np
import scipy.io


def read(source, *names):
    """The variables that are there as arrays of numbers or text (see `door.load_mat`)."""
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
            arrays[name] = _items(name, value)
    return arrays, {}


def _items(name, cells):
    """What the cells of an array of objects hold, one each."""
    try:
        return np.array([np.asarray(cell).item() for cell in cells.ravel()])
    except ValueError:
        raise ValueError(f"{name} should hold single values") from None
