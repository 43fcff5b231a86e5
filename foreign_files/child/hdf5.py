"""Reads weights by layer name from `.keras` and HDF5 files."""

import contextlib
import io
import zipfile

import h5py
import numpy as np

# resnet-110 has 0.4 MB.
_MAX_CONFIG_BYTES = 2**23


def read(source):
    """The arrays of all layers, the layers' names, how many arrays each has, the configuration."""
    texts = {}
    with _opened(source, texts) as file:
        layers = _keras_3_layers(file) if "layers" in file else _keras_2_layers(file)
        every = [dataset for datasets in layers.values() for dataset in datasets]
        arrays = {str(i): np.asarray(dataset, "float32") for i, dataset in enumerate(every)}
    texts["layers"] = list(layers)
    texts["counts"] = list(map(len, layers.values()))
    return arrays, texts


@contextlib.contextmanager
def _opened(path, texts):
    if not zipfile.is_zipfile(path):
        with h5py.File(path, "r") as file:
            # What `model.save` of Keras 2 wrote holds the weights a level deeper.
            yield _group(file, "model_weights") if "model_weights" in file else file
        return
    with zipfile.ZipFile(path) as archive:
        with archive.open("config.json") as file:
            config = file.read(_MAX_CONFIG_BYTES + 1)
        if len(config) > _MAX_CONFIG_BYTES:
            raise ValueError(f"its configuration takes more than {_MAX_CONFIG_BYTES} bytes")
        texts["config"] = [config.decode()]
        with h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as file:
            yield file


def _child(parent, name):
    """What is directly in the file: a link could lead into any other file of this machine."""
    for part in name.split("/"):
        if not isinstance(parent, h5py.Group):
            raise ValueError(f"{part} is not in a group")
        if not isinstance(parent.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{part} is missing or a link to another place")
        parent = parent[part]
    return parent


def _group(parent, name):
    child = _child(parent, name)
    if not isinstance(child, h5py.Group):
        raise ValueError(f"{name} is not a group")
    return child


def _dataset(parent, name):
    child = _child(parent, name)
    if not isinstance(child, h5py.Dataset) or child.external or child.is_virtual:
        raise ValueError(f"{name} is not an array within the file")
    if child.dtype.kind not in "fiu":
        raise ValueError(f"{name} holds no numbers")
    return child


def _keras_3_layers(file):
    layers = {}
    group = _group(file, "layers")
    for key in group:
        variables = _group(group, f"{key}/vars")
        # The groups are numbered by class; the layer's name is an attribute.
        name = variables.attrs.get("name", key)
        if not isinstance(name, str):
            raise ValueError(f"the name of {key} is not a single one")
        layers[name] = [_dataset(variables, i) for i in sorted(variables, key=int)]
    return layers


def _keras_2_layers(file):
    names = _names(file, "layer_names")
    if not names:
        raise ValueError("it has neither `layers` nor `layer_names`, as weights of Keras do")
    groups = {name: _group(file, name) for name in names}
    return {
        name: [_dataset(group, weight) for weight in _names(group, "weight_names")]
        for name, group in groups.items()
    }


def _names(group, attribute):
    # Attributes are limited to 64 kB, so Keras split long ones: layer_names0, layer_names1, …
    parts = [attribute] if attribute in group.attrs else []
    while parts != [attribute] and f"{attribute}{len(parts)}" in group.attrs:
        parts.append(f"{attribute}{len(parts)}")
    names = [name for part in parts for name in group.attrs[part]]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]
