"""What is averaged over the images of an epoch; images of the label -1 do not count.

(`datasets.batches.sequence` fills batches up with them.)
"""

import keras
import numpy as np
from keras import ops

from models.heads import class_scores


def split_mixed(y_true):
    """The labels, and of images mixed of two their second labels and the first ones' weights.

    Args:
        y_true: Labels `(batch,)`, or `(batch, 3)` as `datasets.batches.mixing` has them.
    """
    if len(y_true.shape) != 2 or y_true.shape[1] != 3:
        return y_true, None, None
    return y_true[:, 0], y_true[:, 1], ops.cast(y_true[:, 2], "float32")


def labels_that_count(y_true):
    """Labels as int32 `(batch,)`, and which of them count: float32 `(batch,)`, 1 or 0.

    Of mixed images (`split_mixed`) it is the label of the greater share.

    The label -1 does not count, and becomes 0, so that it can be looked up like any other.
    """
    y_true = split_mixed(y_true)[0]
    labels = ops.cast(ops.reshape(y_true, (-1,)), "int32")
    return ops.maximum(labels, 0), ops.cast(labels >= 0, "float32")


class MeanLoss(keras.metrics.Mean):
    """The mean of a loss.

    Args:
        loss: With a `call` that gives the losses `(batch,)`, 0 for an image that does not count.
    """

    def __init__(self, loss: keras.losses.Loss, name: str = "mean_loss", **kwargs):
        super().__init__(name=name, **kwargs)
        self.loss = loss

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(self.loss.call(y_true, y_pred), labels_that_count(y_true)[1])


class ClassAccuracy(keras.metrics.Mean):
    """The share of images whose class is among the k best, in [0, 1].

    Labels are class indices of shape (batch,). Outputs are probabilities (batch, classes), or an
    embedding (batch, dimensions) where class embeddings are given. The best class is the first of
    those with the highest score, as in `numpy.argmax`.

    Args:
        k: How many classes count.
        class_embeddings: φ as an array of shape (classes, dimensions), or `None`.
        metric: How class embeddings are compared (`EmbeddingLossKind.metric`).
    """

    def __init__(
        self,
        k: int = 1,
        class_embeddings: np.ndarray | None = None,
        metric: str = "dot",
        name: str = "acc",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.k = k
        self.metric = metric
        self.class_embeddings = class_embeddings

    def update_state(self, y_true, y_pred, sample_weight=None):
        labels, counts = labels_that_count(y_true)
        scores = y_pred
        if self.class_embeddings is not None:
            embeddings = ops.convert_to_tensor(self.class_embeddings, "float32")
            scores = class_scores(y_pred, embeddings, self.metric)
        if self.k == 1:
            hits = ops.equal(ops.cast(ops.argmax(scores, axis=-1), "int32"), labels)
        else:
            hits = ops.in_top_k(labels, scores, self.k)
        super().update_state(ops.cast(hits, "float32"), counts)
