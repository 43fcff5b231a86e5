"""Where a network looks: Grad-CAM, on TensorFlow and on JAX.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017, section 3: the last maps before they are pooled, weighted by the mean
gradient of the class's score, of which what is positive is kept.
"""

import keras
import numpy as np
from keras import ops

import models

# Pixels of all images at a time: without compilation all activations are kept. Compiling would
# take longer than the few images do.
_PIXELS = 16 * 32**2


def grad_cam(model: models.ImageClassifier, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """How much each place speaks for a class.

    The class's score is what the softmax is taken of, or the similarity to the class embedding.

    Args:
        model: The classifier.
        images: uint8 `(n, height, width, 3)`, n ≥ 1.
        classes: `(n,)` the class of each image to explain.

    Returns:
        `(n, map height, map width)`, in [0, 1]; the greatest of an image is 1, or all are 0 where
        nothing speaks for the class.
    """
    maps_layer = models.pooling_layer(model)
    to_maps = keras.Model(model.inputs, maps_layer.input)
    score = _scores_of_maps(model, maps_layer.input)
    at_once = max(1, _PIXELS // (images.shape[1] * images.shape[2]))
    found = []
    for i in range(0, len(images), at_once):
        batch = ops.convert_to_tensor(images[i : i + at_once], "float32")
        maps = ops.cast(to_maps(batch, training=False), "float32")
        one_hot = np.eye(len(model.class_names), dtype="float32")[classes[i : i + at_once]]
        gradients = _gradients(lambda values, c=one_hot: ops.sum(score(values) * c), maps)
        weights = ops.mean(gradients, axis=(1, 2), keepdims=True)
        found.append(ops.convert_to_numpy(ops.relu(ops.sum(weights * maps, axis=-1))))
    found = np.concatenate(found).astype("float32")
    most = found.max(axis=(1, 2), keepdims=True)
    return found / np.where(most > 0, most, 1)


def _scores_of_maps(model, maps):
    """The function from maps `(n, height, width, channels)` to the scores of classes `(n, C)`."""
    if not model.gives_probabilities:
        tail = keras.Model(maps, model.named_outputs(model.output)["embedding"])
        return lambda values: model.embedding_head.class_scores(tail(values, training=False))
    last = model.get_layer("prob")
    tail = keras.Model(maps, last.input)

    def logits(values):
        features = ops.cast(tail(values, training=False), "float32")
        if isinstance(last, models.CosineClassifier):
            return last.logits(features)
        return ops.matmul(features, last.kernel) + last.bias

    return logits


def _gradients(function, values):
    """The gradients of a function of an array, which gives a number."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(function)(values)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(values)
        result = function(values)
    return tape.gradient(result, values)
