"""Weights by layer name from `.keras` and HDF5 files, also from strangers.

The HDF5 library may crash, hang or ask for any amount of memory on a damaged file. So this file
is also a program of its own, which reads in a process with limits and hands on plain arrays.
"""

import contextlib
import io
import json
import math
import os
import resource
import sys
import zipfile
from collections.abc import Iterator

import h5py
import numpy as np

# More than this, and more than 20 times the file, is a declaration without content behind it.
_FLOOR_BYTES = 2**30
_EXPANSION = 20
# In one attribute. Keras splits what takes more than 64 kB; resnet-110 has 550 layers.
_MAX_NAMES = 2**16


def read_layers(path: str | os.PathLike) -> dict[str, list[np.ndarray]]:
    """The float32 arrays of each layer, in the order of its variables.

    Args:
        path: `.keras` or `.weights.h5` of Keras 3, or an HDF5 file of Keras 2 with weights or a
            whole model.

    Raises:
        utils.UserError: The file cannot be read, or is damaged or hostile.
    """
    from foreign_files import read_isolated

    arrays = read_isolated(__file__, path, kind="weight file")
    index = json.loads(arrays["index"].tobytes())
    return {name: [arrays[key] for key in keys] for name, keys in index}


def main(source: str, target: str) -> None:
    """What this file is as a program: writes the arrays of `source` to the `.npz` `target`."""
    try:
        _convert(source, target)
    except Exception as error:  # h5py raises nearly anything for a damaged file
        sys.exit(" ".join(str(error).split()) or type(error).__name__)


def _convert(source: str, target: str) -> None:
    size = os.path.getsize(source)
    limit = max(_FLOOR_BYTES, _EXPANSION * size)
    # The interpreter and its libraries, and the file's content twice: packed and as arrays.
    memory = 2**30 + 3 * limit
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    index, arrays = [], {}
    with _open(source, limit) as file:
        # All names of variable length may be the same huge one: they get what the file can hold.
        names = 2**30 + 2 * file.file.id.get_filesize()
        resource.setrlimit(resource.RLIMIT_AS, (min(names, memory), memory))
        layers = _keras_3_layers(file) if "layers" in file else _keras_2_layers(file)
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        every = [dataset for datasets in layers.values() for dataset in datasets]
        if sum(map(_memory, every)) > limit:
            raise ValueError("it declares far larger arrays than it holds")
        for name, datasets in layers.items():
            keys = [str(len(arrays) + i) for i in range(len(datasets))]
            for key, dataset in zip(keys, datasets, strict=True):
                arrays[key] = np.asarray(dataset, "float32")
            index.append((name, keys))
    text = np.frombuffer(json.dumps(index).encode(), np.uint8)
    np.savez(target, index=text, **arrays)


def _memory(dataset: h5py.Dataset) -> int:
    """Bytes that reading takes: a compressed chunk is unpacked as a whole, also for one number."""
    numbers = max(dataset.size, math.prod(dataset.chunks or ()))
    return numbers * max(4, dataset.dtype.itemsize)


@contextlib.contextmanager
def _open(path: str, limit: int) -> Iterator[h5py.Group]:
    if not zipfile.is_zipfile(path):
        with h5py.File(path, "r") as file:
            # What `model.save` of Keras 2 wrote holds the weights a level deeper.
            yield _group(file, "model_weights") if "model_weights" in file else file
        return
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("model.weights.h5")
        if info.file_size > limit:
            raise ValueError("it declares far larger arrays than it holds")
        with h5py.File(io.BytesIO(archive.read(info)), "r") as file:
            yield file


def _child(parent: h5py.Group, name: str):
    """What is directly in the file: a link could lead into any other file of this machine."""
    for part in name.split("/"):
        if not isinstance(parent, h5py.Group):
            raise ValueError(f"{part} is not in a group")
        if not isinstance(parent.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{part} is missing or a link to another place")
        parent = parent[part]
    return parent


def _group(parent: h5py.Group, name: str) -> h5py.Group:
    child = _child(parent, name)
    if not isinstance(child, h5py.Group):
        raise ValueError(f"{name} is not a group")
    return child


def _dataset(parent: h5py.Group, name: str) -> h5py.Dataset:
    child = _child(parent, name)
    if not isinstance(child, h5py.Dataset) or child.external or child.is_virtual:
        raise ValueError(f"{name} is not an array within the file")
    if child.dtype.kind not in "fiu":
        raise ValueError(f"{name} holds no numbers")
    return child


def _keras_3_layers(file: h5py.Group) -> dict[str, list[h5py.Dataset]]:
    layers = {}
    group = _group(file, "layers")
    for key in group:
        variables = _group(group, f"{key}/vars")
        # The groups are numbered by class; the layer's name is an attribute.
        if "name" in variables.attrs and variables.attrs.get_id("name").shape:
            raise ValueError(f"the name of {key} is not a single one")
        name = str(variables.attrs.get("name", key))
        layers[name] = [_dataset(variables, i) for i in sorted(variables, key=int)]
    return layers


def _keras_2_layers(file: h5py.Group) -> dict[str, list[h5py.Dataset]]:
    if not _parts(file, "layer_names"):
        raise ValueError("it has neither `layers` nor `layer_names`, as weights of Keras do")
    layers = {}
    for name in _names(file, "layer_names"):
        group = _group(file, name)
        layers[name] = [_dataset(group, weight) for weight in _names(group, "weight_names")]
    return layers


def _parts(group: h5py.Group, attribute: str) -> list[str]:
    # Attributes are limited to 64 kB, so Keras split long ones: layer_names0, layer_names1, …
    if attribute in group.attrs:
        return [attribute]
    parts = []
    while f"{attribute}{len(parts)}" in group.attrs:
        parts.append(f"{attribute}{len(parts)}")
    return parts


def _names(group: h5py.Group, attribute: str) -> list[str]:
    parts = _parts(group, attribute)
    for part in parts:
        if math.prod(group.attrs.get_id(part).shape) > _MAX_NAMES:
            raise ValueError(f"{part} lists more than {_MAX_NAMES} names")
    names = [name for part in parts for name in group.attrs[part]]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


if __name__ == "__main__":
    main(*sys.argv[1:])
