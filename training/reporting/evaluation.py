"""Scores of a classifier on a test set, from one pass over its images."""

import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import keras
import numpy as np
from keras import ops

import models
from training import memory
from training.devices import distribution
from training.learning.losses import EMBEDDING_LOSSES, output_losses
from utils import UserError

logger = logging.getLogger(__name__)

_CHUNK = 4096


@dataclass(frozen=True)
class Evaluation:
    """What a pass over the test images gave.

    Attributes:
        scores: Losses and accuracies by name: `loss` (with the regularisation, as Keras logs it),
            `acc`, `average_acc` (mean over the classes that have test images), `top<k>_acc`, and
            with two outputs the loss and accuracy of each.
        class_scores: (images, classes), the greatest is the prediction.
        labels: (images,) class indices.
        features: (images, dimensions): the embedding, or a classifier's pooled features.
    """

    scores: dict[str, float]
    class_scores: np.ndarray
    labels: np.ndarray
    features: np.ndarray | None

    @property
    def hits(self) -> np.ndarray:
        """Which images are right, `(images,)`."""
        return np.argmax(self.class_scores, axis=1) == self.labels

    def uncertainty(self) -> dict[str, Any]:
        """`n` images, and the 95 % interval of the accuracy, `acc_interval`."""
        interval = wilson_interval(int(self.hits.sum()), len(self.labels))
        return {"n": len(self.labels), "acc_interval": list(interval)}


def load_model(path: str) -> models.ImageClassifier:
    """Reads a dumped model, with the facts about its training that evaluation needs.

    Raises:
        UserError: The file cannot be read, or is not one that `learn_classifier.py` wrote.
    """
    model = models.load_model(path)
    info = model.info if isinstance(model.info, dict) else {}
    outputs = model.named_outputs(model.output)

    def is_number(key: str, least: float, most: float) -> bool:
        return isinstance(info.get(key), int | float) and least <= info[key] <= most

    def is_integer(key: str, least: float, most: float) -> bool:
        return isinstance(info.get(key), int) and is_number(key, least, most)

    sized = is_integer("image_size", 1, 2**14)
    good = {
        "dataset": isinstance(info.get("dataset"), str),
        "image_size": sized,
        # No data set crops less than 7/8 of the smaller side.
        "test_resize": sized
        and is_integer("test_resize", info["image_size"], 2 * info["image_size"]),
        "seed": is_integer("seed", 0, 2**31),
        # Dumps of before had one seed for all.
        "split_seed": "split_seed" not in info or is_integer("split_seed", 0, 2**31),
        # Likewise they read images as they are stored.
        "exif_rotation": isinstance(info.get("exif_rotation", False), bool),
        "test_fraction": info.get("test_fraction") is None or is_number("test_fraction", 0, 1),
        "loss": "embedding" not in outputs or info.get("loss") in list(EMBEDDING_LOSSES),
        "cls_weight": is_number("cls_weight", 0, 1e18)
        and ("embedding" not in outputs or bool(info["cls_weight"]) == ("prob" in outputs)),
        "label_smoothing": is_number("label_smoothing", 0, 1),
    }
    if wrong := [key for key, is_good in good.items() if not is_good]:
        raise UserError(
            f"{path}: its {wrong[0]} is {str(info.get(wrong[0]))[:50]!r}, which no training "
            "stores; is it a model that learn_classifier.py dumped?"
        )
    return model


def accuracy(class_scores: np.ndarray, labels: np.ndarray) -> float:
    """The share of rows of (images, classes) whose first maximum is at the label, in [0, 1]."""
    return float(np.mean(np.argmax(class_scores, axis=1) == labels))


def top_k_accuracy(class_scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """The share of rows of (images, classes) where fewer than k classes beat the label's."""
    own = np.take_along_axis(class_scores, labels[:, None], axis=1)
    return float(np.mean(np.sum(class_scores > own, axis=1) < k))


def wilson_interval(hits: int, images: int) -> tuple[float, float]:
    """The 95 % interval of a share, by Wilson's score: it holds for few images and near 0 and 1.

    It holds the shares p for which (p - hits / images)² is at most z² · p · (1 - p) / images.
    (Wilson, *Probable inference, the law of succession, and statistical inference*, 1927.)
    """
    # SciPy has it too, but its import would be a tenth of a short run.
    spread, share = NormalDist().inv_cdf(0.975) ** 2 / images, hits / images
    center = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    return (center - half if hits else 0.0), (center + half if hits < images else 1.0)


def average_accuracy(class_scores: np.ndarray, labels: np.ndarray) -> float:
    """The mean of the classes' accuracies; classes without test images do not count."""
    hits = np.argmax(class_scores, axis=1) == labels
    images = np.bincount(labels)
    return float(np.mean(np.bincount(labels, hits)[images > 0] / images[images > 0]))


def accuracies(class_scores: np.ndarray, labels: np.ndarray, top_k: Sequence[int]) -> dict:
    """The accuracies by name."""
    return {
        "acc": accuracy(class_scores, labels),
        "average_acc": average_accuracy(class_scores, labels),
        **{f"top{k}_acc": top_k_accuracy(class_scores, labels, k) for k in top_k},
    }


def evaluate(
    model,
    batches,
    labels: np.ndarray,
    *,
    top_k: Sequence[int] = (),
    features: bool = False,
    hooks: Sequence[keras.callbacks.Callback] = (),
    tta: str | None = None,
) -> Evaluation:
    """Scores an `ImageClassifier` on a test set.

    Args:
        model: The classifier.
        batches: The test images as a `PyDataset`, in the order of the labels.
        labels: (images,) class indices.
        top_k: Further accuracies among the k best.
        features: Whether a classifier without an embedding also gives its pooled features.
        hooks: Callbacks of the prediction.
        tta: `"flip"`: class scores and losses are means over each image and its mirror image. The
            features are those of the image.
    """
    pooled = features and model.class_embeddings is None
    views = _predict(model, batches, len(labels), pooled, hooks, mirrored=tta == "flip")
    outputs = views[0]

    def mean_scores(*names: str) -> np.ndarray:
        chosen = [{name: view[name] for name in names} for view in views]
        return np.mean([ops.convert_to_numpy(model.class_scores(view)) for view in chosen], axis=0)

    regularisation = sum(float(ops.convert_to_numpy(loss)) for loss in model.losses)
    losses = output_losses(model)
    class_scores = mean_scores(*losses)
    scores = {
        "loss": regularisation,
        **accuracies(class_scores, labels, top_k),
    }
    for name, (loss, weight) in losses.items():
        value = float(np.mean([_mean_loss(loss, labels, view[name]) for view in views]))
        scores["loss"] += weight * value
        if len(losses) > 1:
            scores[f"{name}_loss"] = value
            scores |= {
                f"{name}_{key}": value
                for key, value in accuracies(mean_scores(name), labels, top_k).items()
                if key != "average_acc"
            }
    return Evaluation(
        scores, class_scores, labels, outputs.get("embedding", outputs.get("features"))
    )


class Member:
    """A model's part in an ensemble: what it says of which images.

    Attributes:
        images: Names of the test images, in the order of the result.
        result: Its scores.
        class_ids: In the order of the scores.
        class_names: Likewise.
        probabilities: Whether the scores are probabilities, and not similarities.
    """

    def __init__(self, model: models.ImageClassifier, images: Sequence[str], result: Evaluation):
        self.images = images
        self.result = result
        self.class_ids = list(model.class_ids)
        self.class_names = list(model.class_names)
        self.probabilities = "prob" in model.output_names


def ensemble(members: Sequence[Member], top_k: Sequence[int] = ()) -> Member | None:
    """The mean of several models' scores; `None`, and a warning, where they cannot be averaged.

    Args:
        members: The models, evaluated.
        top_k: As for `evaluate`.
    """
    first = members[0]
    for what, facts in {
        "classes": lambda member: (member.class_ids, member.class_names),
        "test images": lambda member: (member.images, member.result.labels.tolist()),
        "kinds of scores (probabilities and similarities)": lambda member: member.probabilities,
    }.items():
        if any(facts(member) != facts(first) for member in members):
            logger.warning("no ensemble: the models have different %s", what)
            return None
    together = copy.copy(first)
    class_scores = np.mean([member.result.class_scores for member in members], axis=0)
    scores = accuracies(class_scores, first.result.labels, top_k)
    together.result = Evaluation(scores, class_scores, first.result.labels, None)
    return together


class _Whole(keras.layers.Layer):
    """Gives every process the whole of a batch, of which each would have its share only."""

    def call(self, inputs):
        mesh = keras.distribution.distribution().device_mesh
        layout = keras.distribution.TensorLayout([None] * len(inputs.shape), mesh)
        return keras.distribution.distribute_tensor(inputs, layout)


def _predict(model, batches, num_images, pooled, hooks, mirrored):
    """The model's outputs as a dictionary of arrays, with the pooled features if asked for.

    A list of them: of the images and, if asked for, of their mirror images.
    """
    named = model.named_outputs
    if pooled:
        model = keras.Model(
            model.inputs, {"prob": model.output, "features": models.pooling_layer(model).output}
        )
    if mirrored:
        [images] = model.inputs
        model = keras.Model(images, [model.output, model(ops.flip(images, axis=2))])
    if distribution.in_several_processes():
        model = keras.Model(model.inputs, keras.tree.map_structure(_Whole(), model.output))
    outputs = model.predict(batches, verbose=0, callbacks=[memory.KeepFreed(), *hooks])
    # What a last batch was filled up with, so that several devices could share it.
    outputs = keras.tree.map_structure(lambda output: output[:num_images], outputs)
    views = outputs if mirrored else [outputs]
    return views if pooled else [named(view) for view in views]


def _mean_loss(loss, labels, outputs):
    chunks = range(0, len(labels), _CHUNK)  # a data set's targets at once can be gigabytes
    values = [
        ops.convert_to_numpy(loss.call(labels[i : i + _CHUNK], outputs[i : i + _CHUNK]))
        for i in chunks
    ]
    return float(np.mean(np.concatenate(values), dtype="float64"))
