"""A harmonic network as a plain one: the same predictions, at the cost of plain convolutions."""

from typing import Any

import keras
import numpy as np
from keras import ops

from models.classifier import ImageClassifier
from models.harmonic import SUFFIX, HarmonicConv2D, HarmonicFilters, cosine_filters
from models.layers import BatchNormalization
from models.saving import in_this_process


def fold(model: ImageClassifier) -> ImageClassifier:
    """A network of plain convolutions that gives what a harmonic one gives in inference.

    Kernels are the sums of their filters. The first convolution takes in its batch normalisation,
    with the running averages, and so has a bias. Layers get the names that they have in the plain
    network. Folded kernels have no regulariser: the coefficients had it.

    Raises:
        ValueError: The network has no harmonic convolutions.
    """
    folding = _Folding(model)
    if not folding.firsts and not any(map(_has_coefficients, model.layers)):
        raise ValueError(f"{model.name} has no harmonic convolutions to fold")
    with in_this_process():
        # Without the classifier's class, whose compilation would be cloned too.
        network = keras.models.clone_model(
            keras.Model(model.inputs, model.output),
            clone_function=folding.plain_layer,
            call_function=_call,
        )
        for layer in model.layers:
            if layer not in folding.passed_by:
                plain = network.get_layer(layer.name.removesuffix(SUFFIX))
                for variable, value in zip(plain.variables, folding.weights(layer), strict=True):
                    variable.assign(value)
        return ImageClassifier(
            network.inputs,
            network.output,
            class_names=model.class_names,
            class_ids=model.class_ids,
            info=model.info,
            name=model.name,
        )


def _has_coefficients(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, HarmonicConv2D)


def _call(layer: keras.layers.Layer, inputs: Any, *args, **kwargs) -> Any:
    return inputs if isinstance(layer, keras.layers.Identity) else layer(inputs, *args, **kwargs)


class _Folding:
    """What becomes of each layer of a model.

    Attributes:
        firsts: By the name of a 1×1 convolution, the filters and the normalisation before it.
        passed_by: These filters and normalisations, which leave nothing.
    """

    def __init__(self, model: keras.Model):
        source = {id(layer.output): layer for layer in model.layers}
        self.firsts = {}
        for layer in model.layers:
            if type(layer) is keras.layers.Conv2D:
                norm = source[id(layer.input)]
                if isinstance(norm, BatchNormalization):
                    filters = source[id(norm.input)]
                    if isinstance(filters, HarmonicFilters):
                        self.firsts[layer.name] = filters, norm
        self.passed_by = [layer for pair in self.firsts.values() for layer in pair]

    def plain_layer(self, layer: keras.layers.Layer) -> keras.layers.Layer:
        """A new layer in place of one of the model."""
        if layer in self.passed_by:
            return keras.layers.Identity()
        config = layer.get_config()
        if layer.name in self.firsts:
            filters, _ = self.firsts[layer.name]
            config |= {
                "kernel_size": filters.kernel_size,
                "strides": filters.strides,
                "padding": filters.padding,
                "use_bias": True,
            }
        elif not _has_coefficients(layer):
            return layer.from_config(config)
        config |= {"name": layer.name.removesuffix(SUFFIX), "kernel_regularizer": None}
        return keras.layers.Conv2D.from_config(config)

    def weights(self, layer: keras.layers.Layer) -> list:
        """The values for the new layer; of a kernel that is folded, computed in float64."""
        if not _has_coefficients(layer) and layer.name not in self.firsts:
            return layer.variables
        coefficients, *bias = (_numbers(variable) for variable in layer.variables)
        if _has_coefficients(layer):
            size = layer.kernel_size[0]
            coefficients = coefficients.reshape(size**2, *coefficients.shape[2:])
            return [np.tensordot(cosine_filters(size), coefficients, 1), *bias]
        filters, norm = self.firsts[layer.name]
        size = filters.kernel_size[0]
        std = np.sqrt(_numbers(norm.moving_variance) + norm.epsilon)
        scaled = coefficients[0, 0] / std[:, np.newaxis]  # (channels · k², outputs)
        by_filter = scaled.reshape(-1, size**2, scaled.shape[-1])
        kernel = np.einsum("yxf,cfo->yxco", cosine_filters(size), by_filter)
        return [kernel, sum(bias) - _numbers(norm.moving_mean) @ scaled]


def _numbers(variable) -> np.ndarray:
    return ops.convert_to_numpy(variable).astype("float64")
