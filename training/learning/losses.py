"""The losses of the paper, on integer labels; the label -1 marks an image that does not count.

Paper: Barz & Denzler, *Deep Learning on Small Datasets without Pre-Training using Cosine Loss*,
WACV 2020, section 3. φ(y) is the embedding of class y, f(x) the network's features.
"""

from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from models import num_replicas
from training.learning.metrics import (
    ClassAccuracy,
    MeanLoss,
    labels_that_count,
    split_mixed,
)
from training.learning.optimizers import make_optimizer


class EmbeddingLossKind(NamedTuple):
    """What an embedding loss needs of the network, and its formula.

    Attributes:
        output: What the head applies to the features (`models.heads.EmbeddingOutput`).
        metric: How the class of an output is found: the most similar embedding by `"dot"` product
            or the nearest by `"euclidean"` distance.
        formula: From targets φ(y) and outputs, both (batch, dimensions), to losses (batch,).
    """

    output: str
    metric: str
    formula: Callable


def _one_minus_dot(targets, outputs):
    return 1.0 - ops.sum(targets * outputs, axis=-1)


def _squared_distance(targets, outputs):
    return ops.sum(ops.square(targets - outputs), axis=-1)


EMBEDDING_LOSSES = {
    "inv_corr": EmbeddingLossKind("l2norm", "dot", _one_minus_dot),  # the cosine loss
    "unnorm_corr": EmbeddingLossKind("linear", "dot", _one_minus_dot),
    "softmax_corr": EmbeddingLossKind("softmax", "dot", _one_minus_dot),
    "mse": EmbeddingLossKind("linear", "euclidean", _squared_distance),
}


class ClassLoss(keras.losses.Loss):
    """A loss by the class: of images mixed of two it is the weighted mean for both classes."""

    def call(self, y_true, y_pred):
        labels, second_labels, weight = split_mixed(y_true)
        values = self.for_labels(labels, y_pred)
        if second_labels is None:
            return values
        return weight * values + (1.0 - weight) * self.for_labels(second_labels, y_pred)

    def for_labels(self, labels, y_pred):
        """The losses `(batch,)` where these are the classes; 0 for the label -1."""
        raise NotImplementedError


class EmbeddingLoss(ClassLoss):
    """The loss between the head's output and the embedding of the true class.

    Labels are class indices of shape (batch,), outputs have shape (batch, dimensions).

    Args:
        kind: A key of `EMBEDDING_LOSSES`.
        class_embeddings: φ as an array of shape (classes, dimensions).
    """

    def __init__(self, kind: str, class_embeddings: np.ndarray, **kwargs):
        super().__init__(**kwargs)
        self.formula = EMBEDDING_LOSSES[kind].formula
        self.class_embeddings = np.asarray(class_embeddings, "float32")

    def for_labels(self, labels, y_pred):
        labels, counts = labels_that_count(labels)
        targets = ops.take(ops.convert_to_tensor(self.class_embeddings), labels, axis=0)
        return counts * self.formula(targets, y_pred)


class CrossEntropy(ClassLoss):
    """Cross entropy of class probabilities, with the original's form of label smoothing.

    Labels are class indices of shape (batch,), outputs are probabilities (batch, classes).

    The target of the true class is 1 - ε and that of each other class ε / (C - 1). (Keras' own
    smoothing has ε / C, and its logarithm has no gradient for probabilities below 1e-7; here that
    is so below 1e-37, where a logit trails the greatest by 85.)

    Args:
        label_smoothing: ε, in [0, 1).
    """

    # The smallest probability whose reciprocal, the gradient, is still a finite float32.
    smallest = 1e-37

    def __init__(self, label_smoothing: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.label_smoothing = label_smoothing

    def for_labels(self, labels, y_pred):
        num_classes = y_pred.shape[-1]
        labels, counts = labels_that_count(labels)
        targets = ops.one_hot(labels, num_classes, dtype=y_pred.dtype)
        if self.label_smoothing:
            others = self.label_smoothing / (num_classes - 1)
            targets = targets * (1.0 - self.label_smoothing - others) + others
        return -counts * ops.sum(targets * ops.log(ops.maximum(y_pred, self.smallest)), axis=-1)


def output_losses(model) -> dict[str, tuple[keras.losses.Loss, float]]:
    """The losses of an `ImageClassifier` and their weights, by the output they apply to.

    Args:
        model: The classifier. Its `info` holds `loss` ("cross_entropy" or a key of
            `EMBEDDING_LOSSES`), `cls_weight` and `label_smoothing`.
    """
    info = model.info
    cross_entropy = CrossEntropy(info["label_smoothing"])
    if model.class_embeddings is None:
        return {"prob": (cross_entropy, 1.0)}
    losses = {"embedding": (EmbeddingLoss(info["loss"], model.class_embeddings), 1.0)}
    if info["cls_weight"]:
        losses["prob"] = (cross_entropy, info["cls_weight"])
    return losses


def compile_classifier(
    model, optimizer: keras.optimizers.Optimizer, *, top_k: Sequence[int] = ()
) -> None:
    """Compiles an `ImageClassifier` with its losses (`output_losses`) and accuracies.

    Args:
        model: The classifier.
        optimizer: The optimiser.
        top_k: Further accuracies among the k best.
    """
    losses, weights, metrics = {}, {}, {}
    for output, (loss, weight) in output_losses(model).items():
        losses[output], weights[output] = loss, weight
        compared = {}
        if output == "embedding":
            kind = EMBEDDING_LOSSES[model.info["loss"]]
            compared = {"class_embeddings": model.class_embeddings, "metric": kind.metric}
        metrics[output] = [
            ClassAccuracy(**compared),
            *(ClassAccuracy(k, name=f"top{k}_acc", **compared) for k in top_k),
        ]
        if len(output_losses(model)) > 1:
            # Keras' own averages are not those of the images (`epochs.epoch_scores`).
            metrics[output].append(MeanLoss(loss))
    if len(losses) == 1:
        # A model with one output returns a plain tensor, and its metrics have no prefix.
        [losses], weights, [metrics] = losses.values(), None, metrics.values()
    # Compiled by XLA a replica's step would merge gradients by means of its own.
    jit_compile = "auto" if num_replicas() == 1 else False
    model.compile(
        optimizer, loss=losses, loss_weights=weights, metrics=metrics, jit_compile=jit_compile
    )


def compile_model(args: Namespace, model: keras.Model) -> None:
    """Compiles an `ImageClassifier` with the optimiser, anew, that resolved arguments ask for."""
    optimizer = make_optimizer(args)
    if args.optimizer != "sgd" and args.weight_decay_on == "kernels":
        # Biases and what scales and shifts are vectors.
        vectors = [weight for weight in model.trainable_variables if len(weight.shape) < 2]
        optimizer.exclude_from_weight_decay(vectors)
    compile_classifier(model, optimizer, top_k=args.top_k_acc)
