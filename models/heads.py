"""What stands on the features: embeddings and the classes' own, or learned vectors of classes."""

import math
from collections.abc import Callable
from typing import NamedTuple

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


class ClassificationLoss(NamedTuple):
    """What the cross entropy is computed of instead of a dense layer's outputs.

    Attributes:
        similarity: From the cosines of features and class vectors `(batch, C)`, and κ, to
            similarities `(batch, C)`, whose softmax is taken after they are multiplied by a
            learned scale above 1.
        first_scale: From C to the scale that a training begins with.
    """

    similarity: Callable
    first_scale: Callable[[int], float]


def _cosine(cosines, kappa):
    return cosines


def _t_vmf(cosines, kappa):
    return (1.0 + cosines) / (1.0 + kappa * (1.0 - cosines)) - 1.0


def _scale_of_99_percent(num_classes: int) -> float:
    """The scale that gives features at their own class vector the probability 0.99.

    That is for C vectors as far from one another as they can be, whose cosines are −1 / (C − 1);
    NormFace, section 3.3.
    """
    return (1.0 - 1.0 / num_classes) * math.log(99.0 * (num_classes - 1))


CLASSIFICATION_LOSSES = {
    # Wang et al., https://arxiv.org/abs/1704.06369
    "normface": ClassificationLoss(_cosine, _scale_of_99_percent),
    # Kobayashi, "T-vMF Similarity for Regularizing Intra-Class Feature Distribution", CVPR 2021
    "t-vmf": ClassificationLoss(_t_vmf, lambda num_classes: 1.0 + math.log(2.0)),
}


@keras.saving.register_keras_serializable(package="small_data")
class CosineClassifier(keras.layers.Layer):
    """Class probabilities from the angles between features and learned class vectors.

    Takes features `(batch, D)` and gives float32 probabilities `(batch, C)`: the softmax of
    similarities times a learned scale, 1 + softplus(s). It has no bias.

    Args:
        num_classes: C.
        loss: A key of `CLASSIFICATION_LOSSES`.
        kappa: κ of `"t-vmf"`, above −½: the greater, the sooner similarity falls with the angle.
        kernel_initializer: Of the class vectors `(D, C)`.
        kernel_regularizer: Of the class vectors, whose lengths make no difference to the outputs.
    """

    def __init__(
        self,
        num_classes: int,
        loss: str,
        kappa: float = 16.0,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        **kwargs,
    ):
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        if loss not in CLASSIFICATION_LOSSES:
            raise ValueError(f"loss must be one of {list(CLASSIFICATION_LOSSES)}, not {loss!r}")
        if not -0.5 < kappa < math.inf:
            raise ValueError(f"kappa must be a number above -0.5, not {kappa}")
        self.num_classes = num_classes
        self.loss = loss
        self.kappa = kappa
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.num_classes),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            name="kernel",
        )
        first = CLASSIFICATION_LOSSES[self.loss].first_scale(self.num_classes)
        self.raw_scale = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(math.log(math.expm1(first - 1.0))),
            name="raw_scale",
        )

    @property
    def scale(self):
        """What similarities are multiplied by."""
        return 1.0 + ops.softplus(self.raw_scale)

    def logits(self, features):
        """What the softmax is taken of, `(batch, C)`."""
        class_vectors = ops.transpose(l2_normalize(ops.transpose(self.kernel)))
        cosines = ops.matmul(l2_normalize(features), class_vectors)
        similarity = CLASSIFICATION_LOSSES[self.loss].similarity
        return self.scale * similarity(cosines, self.kappa)

    def call(self, features):
        return ops.softmax(self.logits(features))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.num_classes)

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "loss": self.loss,
            "kappa": self.kappa,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
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
