"""Models from `.keras` files, also from strangers: nothing is run, nothing large is made unseen.

A few lines of configuration can declare layers of any size, and Keras makes their variables as it
reads them. So the network is first made without the variables' values, and its shapes are compared
with the weights that the file really holds.
"""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

import foreign_files
from models.harmonic import HarmonicFilters

# What a model of this program consists of, by module. Keras has classes that read other files, run
# code of other libraries or make large arrays when they are made from a configuration.
_KERAS_LAYERS = {
    "Activation", "Add", "Average", "AveragePooling2D", "BatchNormalization", "Concatenate",
    "Conv2D", "Cropping2D", "Dense", "DepthwiseConv2D", "Dropout", "Flatten",
    "GlobalAveragePooling2D", "GlobalMaxPooling2D", "InputLayer", "MaxPooling2D", "Multiply",
    "ReLU", "SeparableConv2D", "Softmax", "UpSampling2D", "ZeroPadding2D",
}  # fmt: skip
# Keras also makes initial weights: these in no time, of others an orthogonal matrix takes hours.
_INITIALIZERS = {
    "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "LecunNormal", "LecunUniform",
    "Ones", "RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling", "Zeros",
}  # fmt: skip
_CLASSES = {
    None: {"__keras_tensor__"},
    "keras": {"DTypePolicy"},
    "keras.layers": _KERAS_LAYERS,
    "keras.initializers": _INITIALIZERS,
    "keras.regularizers": {"L2"},  # of a long kernel, others make a square matrix
    "models.layers": {"BatchNormalization", "PadChannels", "Standardize"},
    "models.heads": {"CosineClassifier", "EmbeddingOutput"},
    "models.harmonic": {"HarmonicConv2D", "HarmonicFilters"},
}
# What else a name can stand for in a layer's configuration.
_NAMES = {
    "activation": {"linear", "relu", "softmax", "tanh", "sigmoid", "elu", "gelu", "silu"},
    "dtype": {"float32", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16"},
}
# And where there must be a class of a certain module, or nothing.
_MODULES = {
    "initializer": "keras.initializers", "regularizer": "keras.regularizers", "constraint": "none",
}  # fmt: skip
# Layers and the tensors between them; resnet-110 has 833.
_MAX_PARTS = 8000
# Numbers that a layer may give for one image: 1 GiB. resnet-50 gives 3 million at 448 pixels.
_MAX_OUTPUT = 2**28
# The same for all layers together; resnet-50 gives 130 million at 448 pixels.
_MAX_OUTPUTS = 2**31
# Multiplications and comparisons for one image; resnet-50 takes 2^34 at 448 pixels.
_MAX_OPERATIONS = 2**40
# Side of the images where neither the network nor its facts say one.
_SIDE = 224


def read_model(path: str | os.PathLike) -> keras.Model:
    """The network of a `.keras` file with its weights.

    Raises:
        utils.UserError: The weights cannot be read, or are hostile.
        Exception: Keras raises nearly anything for a damaged configuration; one that is hostile
            is a `ValueError`.
    """
    layers, text = foreign_files.load_weights(path)
    config = _parse(text)
    # Keras keeps the variables that are still to be made per thread: those of a model that is
    # refused go with this one, instead of being made together with the next model's.
    with ThreadPoolExecutor(1) as thread:
        model = thread.submit(_build, config, layers).result()
    for layer in model.layers:
        arrays = layers.get(layer.name, [])
        layer.load_own_variables({str(i): array for i, array in enumerate(arrays)})
    return model


def reason(error: Exception) -> str:
    """One short line for what `read_model` raised: of what Keras nests, the innermost cause."""
    text = str(error).strip()
    *outer, cause = text.split("Exception encountered: ")
    layer = re.search(r"config=\{'name': '([^']*)'", outer[-1]) if outer else None
    cause = cause.split("\n")[0].strip() or type(error).__name__
    return (f"layer {layer[1]}: {cause}" if layer else cause)[:200]


def _build(config: dict[str, Any], layers: Mapping[str, Sequence[np.ndarray]]) -> keras.Model:
    """The network with new weights, which are made only after its sizes were checked."""
    listed, info = len(config["config"]["layers"]), config["config"].get("info")
    with keras.StatelessScope(initialize_variables=False) as scope:
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
        if len(model.layers) != listed:
            raise ValueError("refused: it lists layers that are not in the network")
        for layer in model.layers:
            declared = sum(math.prod(weight.shape) for weight in layer.weights)
            held = sum(array.size for array in layers.get(layer.name, []))
            if declared > held:
                raise ValueError(
                    f"refused: its layer {layer.name} has {declared} weights, of which the file "
                    f"holds {held}"
                )
        _check_outputs(model, info)
        scope.initialize_variables = True
    return model


def _check_outputs(model: keras.Model, info: Any) -> None:
    """Refuses a network that takes more memory or time for an image than any device has."""
    side = info.get("image_size") if isinstance(info, dict) else None
    side = side if isinstance(side, int) else _SIDE
    [images] = model.inputs
    shape = [1, *(side if length is None else length for length in images.shape[1:])]
    every = keras.Model(model.inputs, [layer.output for layer in model.layers])
    outputs = operations = 0
    for layer, output in zip(model.layers, every.compute_output_shape(shape), strict=True):
        if math.prod(output) > _MAX_OUTPUT:
            raise ValueError(
                f"refused: its layer {layer.name} gives {' x '.join(map(str, output[1:]))} numbers "
                "for an image"
            )
        # A kernel is used at each place, and a window of pooling or dilation spans more of them.
        weights = sum(math.prod(weight.shape) for weight in layer.weights)
        window = [*getattr(layer, "pool_size", ()), *getattr(layer, "dilation_rate", ())]
        if isinstance(layer, HarmonicFilters):
            window += layer.kernel_size
        work = (math.prod(output) + math.prod(output[:-1]) * weights) * math.prod(window)
        outputs += math.prod(output)
        operations += work
        if outputs > _MAX_OUTPUTS or operations > _MAX_OPERATIONS:
            raise ValueError(
                f"refused: up to its layer {layer.name} it takes {operations} operations and "
                f"{outputs} numbers for an image"
            )


def _parse(text: str | None) -> dict[str, Any]:
    """The configuration of a functional network, if nothing but layers of our networks is in it."""
    config = json.loads(text or "{}")
    if (config.get("class_name"), config.get("registered_name")) != (
        "ImageClassifier",
        "small_data>ImageClassifier",
    ):
        raise ValueError("it holds no image classifier of learn_classifier.py")
    # What it was compiled with, an optimiser's state say, is no part of the network.
    config["compile_config"] = None
    for item in _items(config["config"]):
        if "class_name" in item and not _is_known(item):
            name = f"{item.get('module')}.{item['class_name']}"
            raise ValueError(f"refused: it asks for {name}, which no network here needs")
        for key, value in item.items():
            module = _MODULES.get(key.rpartition("_")[2])
            if isinstance(value, dict):
                allowed = module in (None, value.get("module"))
            else:
                allowed = value is None or (not module and value in _NAMES.get(key, [value]))
            if not allowed:
                raise ValueError(f"refused: the {key} of its layer {item.get('name')} is {value}")
    _check_graph(config["config"]["layers"])
    return config


def _check_graph(layers: Sequence[dict]) -> None:
    """Refuses layers that are not listed after those that they take their inputs from.

    That is how Keras writes them; of others it may take hours to find the order.
    """
    before = set()
    parts = 0
    for layer in layers:
        name, calls = layer["config"]["name"], layer["inbound_nodes"]
        tensors = [item for item in _items(calls) if item.get("class_name") == "__keras_tensor__"]
        sources = {tensor["config"]["keras_history"][0] for tensor in tensors}
        if name in before or len(calls) > 1 or not sources <= before:
            raise ValueError(f"refused: its layer {name} is out of order, or there twice")
        before.add(name)
        parts += 1 + len(tensors)
    if parts > _MAX_PARTS:
        raise ValueError(f"refused: its network has {parts} layers and tensors")


def _items(content: Any) -> Iterator[dict]:
    """All dictionaries in a JSON value."""
    left = [content]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            left += item.values()
            yield item
        elif isinstance(item, list):
            left += item


def _is_known(item: dict) -> bool:
    """Whether a class in the configuration is one that our networks consist of."""
    name, module, registered = (item.get(k) for k in ("class_name", "module", "registered_name"))
    expected = f"small_data>{name}" if str(module).startswith("models.") else None
    return registered == expected and name in _CLASSES.get(module, ())
