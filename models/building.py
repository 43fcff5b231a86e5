"""From a network's name, its classes and what shall stand on it to a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from architectures import check_embedding_dim, get_architecture
from models import cifar_resnet, fast_cnn, plain, resnet, torchvision_resnet, wide_resnet
from models.classifier import ImageClassifier, pooling_layer
from models.heads import CosineClassifier, EmbeddingOutput, as_class_embeddings
from models.layers import BatchNormalization, Standardize, kernel_l2
from utils import UsageError, nearest_names

_FAMILIES = {
    "cifar_resnet": cifar_resnet,
    "fast_cnn": fast_cnn,
    "plain": plain,
    "resnet": resnet,
    "torchvision_resnet": torchvision_resnet,
    "wide_resnet": wide_resnet,
}
_BRANCH_WEIGHT_DECAY = 5e-4


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a decoded image before the network sees it.

    The model does all of it itself: the first four are its layer `standardize`, and
    `ImageClassifier.preprocess` does the rest, which is kept in the model's `info`.

    Attributes:
        mean, std, std_epsilon, channel_order: See `layers.Standardize`.
        image_size: Side of the images that the network is trained and tested on, in pixels; `None`
            makes a model that does not take images of other sizes.
        test_resize: The smaller side that an image is resized to before its centre is cropped; by
            default `image_size`.
        exif_rotation: Whether photographs are turned upright as their EXIF data say.
    """

    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)
    std_epsilon: float = 0.0
    channel_order: str = "rgb"
    image_size: int | None = None
    test_resize: int | None = None
    exif_rotation: bool = False

    def cropping(self) -> dict[str, int | bool]:
        """What `ImageClassifier.preprocess` needs to know; empty without an `image_size`."""
        if self.image_size is None:
            return {}
        return {
            "image_size": self.image_size,
            "test_resize": self.test_resize or self.image_size,
            "exif_rotation": self.exif_rotation,
        }


@dataclass(frozen=True)
class EmbeddingHead:
    """What makes a network give embeddings of images.

    Attributes:
        class_embeddings: `(C, D)`, taken as they are.
        output: What is applied to the features: `"l2norm"`, `"softmax"` or `"linear"`.
        metric: How the nearest class embedding is found: `"dot"` or `"euclidean"`.
        classifier_branch: Adds ReLU → batch normalisation → dense softmax layer `prob` to the
            embedding, for the paper's combined loss.
        classifier_base: Name or index of the layer that this branch sits on instead.
    """

    class_embeddings: np.ndarray
    output: str = "l2norm"
    metric: str = "dot"
    classifier_branch: bool = False
    classifier_base: str | int | None = None


@dataclass(frozen=True)
class CosineHead:
    """What makes a network classify by the angles to learned class vectors.

    Attributes:
        loss: A key of `models.heads.CLASSIFICATION_LOSSES`.
        kappa: κ of `"t-vmf"`.
    """

    loss: str
    kappa: float = 16.0


def build_model(
    architecture: str,
    class_names: Sequence[str],
    *,
    class_ids: Sequence[int | str] | None = None,
    head: EmbeddingHead | CosineHead | None = None,
    preprocessing: Preprocessing = Preprocessing(),
    weight_decay: float | None = None,
    decay_all: bool = False,
    harmonic: str = "none",
    info: dict[str, Any] | None = None,
) -> ImageClassifier:
    """Builds a network for C classes, from raw RGB images of any size that it admits.

    Args:
        architecture: A key of `architectures.ARCHITECTURES`.
        class_names: Names of the C classes.
        class_ids: Ids of the classes in a hierarchy; by default 0 … C−1.
        head: What stands on the features. `None` makes a softmax classifier with the output
            layer `prob`.
        preprocessing: What is done to an image first.
        weight_decay: L2 of all kernels of convolutions and dense layers, in place of the
            network's own; 0 is none.
        decay_all: Whether `weight_decay`, which has to be given, is also that of biases and of
            the scales and shifts of batch normalisation.
        harmonic: Which convolutions are sums of cosine filters (`models.convolutions.conv2d`).
        info: JSON-able facts about the training (loss, data set, …), kept in the model.

    Raises:
        UsageError: Arguments that a user chose do not go together.
    """
    entry = get_architecture(architecture)
    family = _FAMILIES[entry.family]
    class_ids = range(len(class_names)) if class_ids is None else class_ids
    if len(class_ids) != len(class_names):
        raise ValueError(f"{len(class_ids)} class ids for {len(class_names)} classes")

    def decay(own: float) -> float:
        return own if weight_decay is None else weight_decay

    def probabilities(features, own_decay: float):
        return keras.layers.Dense(
            len(class_names),
            activation="softmax",
            kernel_initializer=family.OUTPUT_INITIALIZER(),
            kernel_regularizer=kernel_l2(decay(own_decay)),
            dtype="float32",
            name="prob",
        )(features)

    if isinstance(head, EmbeddingHead):
        class_embeddings = _checked_embeddings(architecture, head, len(class_names))
    # A float32 input takes uint8 too: Keras casts within the compiled step, so that uint8
    # batches travel to the device as they are.
    images = keras.Input((None, None, 3), dtype="float32", name="image")
    first = preprocessing
    x = Standardize(
        first.mean, first.std, first.std_epsilon, first.channel_order, name="standardize"
    )(images)
    x = family.backbone(
        x, weight_decay=decay(family.WEIGHT_DECAY), harmonic=harmonic, **entry.options
    )

    if head is None:
        outputs = probabilities(x, family.OUTPUT_WEIGHT_DECAY)
    elif isinstance(head, CosineHead):
        outputs = CosineClassifier(
            len(class_names),
            head.loss,
            head.kappa,
            kernel_initializer=family.OUTPUT_INITIALIZER(),
            kernel_regularizer=kernel_l2(decay(family.OUTPUT_WEIGHT_DECAY)),
            name="prob",
        )(x)
    else:
        if entry.embedding_dim is None:
            x = keras.layers.Dense(
                class_embeddings.shape[1],
                kernel_initializer=family.OUTPUT_INITIALIZER(),
                kernel_regularizer=kernel_l2(decay(family.OUTPUT_WEIGHT_DECAY)),
                name="embedding",
            )(x)
        layer = EmbeddingOutput(len(class_names), head.output, head.metric, name="head")
        outputs = layer(x)
        layer.class_embeddings.assign(class_embeddings)
        if head.classifier_branch:
            x = outputs
            if head.classifier_base is not None:
                x = _layer_output(keras.Model(images, outputs), head.classifier_base)
            x = keras.layers.ReLU(name="relu_prob")(x)
            x = BatchNormalization(name="bn_prob")(x)
            outputs = {"embedding": outputs, "prob": probabilities(x, _BRANCH_WEIGHT_DECAY)}

    model = ImageClassifier(
        images,
        outputs,
        class_names=[str(name) for name in class_names],
        class_ids=[i if isinstance(i, str) else int(i) for i in class_ids],
        info={**(info or {}), **preprocessing.cropping()},
        name=architecture,
    )
    if decay_all:
        _decay_all(model, weight_decay)
    return model


def _decay_all(model: keras.Model, weight_decay: float) -> None:
    """Lets decay all that `--weight_decay_on all` names; the scale of cosines is not among it."""
    for layer in model.layers:
        for name in ("kernel", "bias", "gamma", "beta"):
            weight = getattr(layer, name, None)
            if weight is not None:
                weight.regularizer = kernel_l2(weight_decay)
                setattr(layer, f"{name}_regularizer", weight.regularizer)


def _checked_embeddings(architecture: str, head: EmbeddingHead, num_classes: int) -> np.ndarray:
    """The class embeddings of a head, if they fit the network and its classes."""
    if head.classifier_base is not None and not head.classifier_branch:
        raise UsageError("--cls_base: needs --cls_weight, which adds the branch to be based there")
    try:
        class_embeddings = as_class_embeddings(head.class_embeddings, num_classes)
    except ValueError as error:
        raise UsageError(f"--embedding: {error}") from None
    check_embedding_dim(architecture, class_embeddings.shape[1])
    return class_embeddings


def _layer_output(model: keras.Model, base: str | int):
    """The output of a layer that the user named, or numbered as in `model.layers`."""
    try:
        layer = model.layers[int(base)]
    except IndexError:
        raise UsageError(f"--cls_base {base}: there are only {len(model.layers)} layers") from None
    except ValueError:
        names = [layer.name for layer in model.layers]
        if base not in names:
            raise UsageError(
                f"--cls_base {base}: no such layer; {nearest_names(base, names)}"
            ) from None
        layer = model.get_layer(base)
    if len(layer.output.shape) != 2:
        raise UsageError(
            f"--cls_base {base}: the branch needs a vector per image, but layer {layer.name} "
            f"gives shape {layer.output.shape}; use {pooling_layer(model).name} or a later layer"
        )
    return layer.output
