"""What stands on the embedding: its normalisation and the class embeddings it is compared with."""

import keras
import numpy as np
from keras import ops


def l2_normalize(features):
    """Scales vectors to unit length: `x · rsqrt(max(‖x‖², 1e-12))`, in float32.

    Unlike that of `keras.ops.normalize`, the gradient at a zero vector is finite.

    Args:
        features: `(batch, dimensions)`.
    """
    features = ops.cast(features, "float32")
    squared_norm = ops.sum(ops.square(features), axis=-1, keepdims=True)
    return features * ops.rsqrt(ops.maximum(squared_norm, 1e-12))


def class_scores(embeddings, class_embeddings, metric: str):
    """How well each class fits an embedding: the largest score is the prediction.

    Args:
        embeddings: `(batch, D)`.
        class_embeddings: `(C, D)`.
        metric: `"dot"` for dot products, `"euclidean"` for negative squared distances.

    Returns:
        `(batch, C)`, float32.
    """
    embeddings = ops.cast(embeddings, "float32")
    products = ops.matmul(embeddings, ops.transpose(class_embeddings))
    if metric == "dot":
        return products
    return (
        2.0 * products
        - ops.sum(ops.square(embeddings), axis=-1, keepdims=True)
        - ops.sum(ops.square(class_embeddings), axis=-1)
    )


@keras.saving.register_keras_serializable(package="small_data")
class EmbeddingOutput(keras.layers.Layer):
    """The output of an embedding network, and the class embeddings φ that belong to it.

    Takes features `(batch, D)` and gives float32 embeddings `(batch, D)`. The class embeddings
    `(C, D)` are a non-trainable weight, so that a saved model is complete in itself.

    Args:
        num_classes: C.
        transform: What is applied to the features: `"l2norm"`, `"softmax"` or `"linear"` (nothing).
        metric: How the nearest class is found: `"dot"` product or `"euclidean"` distance.
    """

    def __init__(self, num_classes: int, transform: str = "l2norm", metric: str = "dot", **kwargs):
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        if transform not in ("l2norm", "softmax", "linear"):
            raise ValueError(
                f"transform must be 'l2norm', 'softmax' or 'linear', not {transform!r}"
            )
        if metric not in ("dot", "euclidean"):
            raise ValueError(f"metric must be 'dot' or 'euclidean', not {metric!r}")
        self.num_classes = num_classes
        self.transform = transform
        self.metric = metric

    def build(self, input_shape):
        self.class_embeddings = self.add_weight(
            shape=(self.num_classes, input_shape[-1]),
            initializer="zeros",
            trainable=False,
            name="class_embeddings",
        )

    def call(self, features):
        if self.transform == "l2norm":
            return l2_normalize(features)
        if self.transform == "softmax":
            return ops.softmax(features)
        return features

    def class_scores(self, embeddings):
        """`class_scores` of outputs of this layer, `(batch, D)`, for its class embeddings."""
        return class_scores(embeddings, self.class_embeddings, self.metric)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "transform": self.transform,
            "metric": self.metric,
        }


def as_class_embeddings(class_embeddings, num_classes: int) -> np.ndarray:
    """The class embeddings as a float32 array.

    Raises:
        ValueError: They are not `(num_classes, D)` finite numbers.
    """
    array = np.asarray(class_embeddings, dtype="float32")
    if array.ndim != 2 or len(array) != num_classes or array.shape[1] == 0:
        raise ValueError(f"class embeddings of shape {array.shape} for {num_classes} classes")
    if not np.isfinite(array).all():
        raise ValueError("class embeddings with values that are not finite")
    return array
