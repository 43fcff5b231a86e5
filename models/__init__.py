"""The networks: `build_model` makes one; importing this package lets Keras load a saved one.

import keras, models
model = keras.models.load_model("M.keras")
classes, scores = model.classify(images)  # raw RGB images, 0–255
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from architectures import check_embedding_dim, get_architecture
from models import cifar_resnet, model_files, plain, resnet
from models.heads import EmbeddingOutput, as_class_embeddings
from models.layers import (
    BatchNormalization,
    PadChannels,
    Standardize,
    kernel_l2,
    set_batch_norm_groups,
)
from utils import UsageError, UserError, atomic_path, nearest_names

__all__ = [
    "BatchNormalization",
    "EmbeddingOutput",
    "ImageClassifier",
    "PadChannels",
    "Standardize",
    "build_model",
    "load_model",
    "num_replicas",
    "save_model",
    "save_weights",
    "set_batch_norm_groups",
]

_FAMILIES = {"cifar_resnet": cifar_resnet, "plain": plain, "resnet": resnet}
_BRANCH_WEIGHT_DECAY = 5e-4


@keras.saving.register_keras_serializable(package="small_data")
class ImageClassifier(keras.Model):
    """A functional model from raw RGB images `(batch, height, width, 3)`, 0–255, to its outputs.

    The outputs are class probabilities `(batch, C)`, or embeddings `(batch, D)`, or a dictionary
    of both under `"prob"` and `"embedding"`; always float32.

    Args:
        class_names: Names of the C classes.
        class_ids: Their ids in a hierarchy; by default 0 … C−1.
        info: JSON-able facts about the training that evaluation needs later.
        *args, **kwargs: As for `keras.Model`. (Keras restores a saved functional model only
            through a constructor with this signature.)
    """

    def __init__(self, *args, class_names=(), class_ids=(), info=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.class_names = tuple(class_names)
        self.class_ids = tuple(class_ids)
        self.info = info

    @property
    def embedding_head(self) -> EmbeddingOutput | None:
        """The layer that holds the class embeddings; `None` for a softmax classifier."""
        heads = [layer for layer in self.layers if isinstance(layer, EmbeddingOutput)]
        return heads[0] if heads else None

    @property
    def class_embeddings(self) -> np.ndarray | None:
        """The class embeddings `(C, D)`; `None` for a softmax classifier."""
        head = self.embedding_head
        return None if head is None else ops.convert_to_numpy(head.class_embeddings)

    def named_outputs(self, outputs) -> dict:
        """What the model returned, by output: `"prob"`, `"embedding"` or both."""
        if isinstance(outputs, dict):
            return outputs
        return {"prob" if self.embedding_head is None else "embedding": outputs}

    def class_scores(self, outputs):
        """How well each class fits: the largest score is the prediction.

        These are the probabilities where the model has them, and otherwise the similarities of
        the embedding to the class embeddings.

        Args:
            outputs: What the model returned for a batch.

        Returns:
            `(batch, C)`.
        """
        outputs = self.named_outputs(outputs)
        if "prob" in outputs:
            return outputs["prob"]
        return self.embedding_head.class_scores(outputs["embedding"])

    def classify(self, images, batch_size: int = 32) -> tuple[np.ndarray, np.ndarray]:
        """Predicts the classes of raw images.

        Args:
            images: `(n, height, width, 3)`, RGB, uint8 or float, 0–255.
            batch_size: Images at a time.

        Returns:
            Class indices `(n,)` and scores `(n, C)` (see `class_scores`).
        """
        outputs = self.predict(images, batch_size=batch_size, verbose=0)
        scores = ops.convert_to_numpy(self.class_scores(outputs))
        return scores.argmax(axis=-1), scores

    def compile(self, *args, **kwargs):
        """As in Keras; adds the metric `mean_loss`, see `compute_loss`."""
        super().compile(*args, **kwargs)
        if not hasattr(self, "_mean_loss"):
            self._mean_loss = keras.metrics.Mean(name="mean_loss")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """As in Keras; also keeps the mean over images, the metric `mean_loss`.

        Keras' own `loss` counts a batch by its size, whatever the weights. Here all weights of a
        batch are its size over the images that count, as `datasets.batches.sequence` has them.
        """
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        images = ops.cast(ops.shape(keras.tree.flatten(y)[0])[0], "float32")
        if sample_weight is not None:
            images /= ops.mean(sample_weight)
        # A replica's loss is its share of the whole batch's.
        self._mean_loss.update_state(loss * num_replicas(), sample_weight=images)
        return loss

    def get_compile_config(self):
        # Losses and metrics are `training`'s: with them in the file, an import of `models` alone
        # could not load it.
        return None

    def get_config(self):
        return {
            **super().get_config(),
            "class_names": list(self.class_names),
            "class_ids": list(self.class_ids),
            "info": self.info,
        }


def num_replicas() -> int:
    """How many devices run the same step on a part of the batch each, where code can tell.

    That is so on TensorFlow; on JAX a step is one program for all devices.
    """
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def build_model(
    architecture: str,
    class_names: Sequence[str],
    *,
    class_ids: Sequence[int | str] | None = None,
    class_embeddings: np.ndarray | None = None,
    embedding_output: str = "l2norm",
    embedding_metric: str = "dot",
    classifier_branch: bool = False,
    classifier_base: str | int | None = None,
    weight_decay: float | None = None,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
    std_epsilon: float = 0.0,
    channel_order: str = "rgb",
    info: dict[str, Any] | None = None,
) -> ImageClassifier:
    """Builds a network for C classes, from raw RGB images of any size that it admits.

    Args:
        architecture: A key of `architectures.ARCHITECTURES`.
        class_names: Names of the C classes.
        class_ids: Ids of the classes in a hierarchy; by default 0 … C−1.
        class_embeddings: `(C, D)`, taken as they are. `None` makes a softmax classifier with the
            output layer `prob`.
        embedding_output: What is applied to the features: `"l2norm"`, `"softmax"` or `"linear"`.
        embedding_metric: How the nearest class embedding is found: `"dot"` or `"euclidean"`.
        classifier_branch: Adds ReLU → batch normalisation → dense softmax layer `prob` to the
            embedding, for the paper's combined loss.
        classifier_base: Name or index of the layer that this branch sits on instead.
        weight_decay: L2 of all kernels of convolutions and dense layers, in place of the
            network's own; 0 is none.
        mean, std, std_epsilon, channel_order: Preprocessing, see `layers.Standardize`.
        info: JSON-able facts about the training (loss, data set, …), kept in the model.

    Raises:
        UsageError: Arguments that a user chose do not go together.
    """
    if class_embeddings is None and classifier_branch:
        raise UsageError("--cls_weight: needs --embedding, whose loss the weight is relative to")
    if classifier_base is not None and not classifier_branch:
        raise UsageError("--cls_base: needs --cls_weight, which adds the branch to be based there")
    entry = get_architecture(architecture)
    family = _FAMILIES[entry.family]
    num_classes = len(class_names)
    class_ids = range(num_classes) if class_ids is None else class_ids
    if len(class_ids) != num_classes:
        raise ValueError(f"{len(class_ids)} class ids for {num_classes} classes")

    def own_or(own: float) -> float:
        return own if weight_decay is None else weight_decay

    def probabilities(features, own_weight_decay):
        return keras.layers.Dense(
            num_classes,
            activation="softmax",
            kernel_regularizer=kernel_l2(own_or(own_weight_decay)),
            dtype="float32",
            name="prob",
        )(features)

    # A float32 input takes uint8 too: Keras casts within the compiled step, so that uint8
    # batches travel to the device as they are.
    images = keras.Input((None, None, 3), dtype="float32", name="image")
    x = Standardize(mean, std, std_epsilon, channel_order, name="standardize")(images)
    x = family.backbone(x, weight_decay=own_or(family.WEIGHT_DECAY), **entry.options)

    if class_embeddings is None:
        outputs = probabilities(x, family.OUTPUT_WEIGHT_DECAY)
    else:
        try:
            class_embeddings = as_class_embeddings(class_embeddings, num_classes)
        except ValueError as error:
            raise UsageError(f"--embedding: {error}") from None
        dimensions = class_embeddings.shape[1]
        check_embedding_dim(architecture, dimensions)
        if entry.embedding_dim is None:
            x = keras.layers.Dense(
                dimensions,
                kernel_regularizer=kernel_l2(own_or(family.OUTPUT_WEIGHT_DECAY)),
                name="embedding",
            )(x)
        head = EmbeddingOutput(num_classes, embedding_output, embedding_metric, name="head")
        outputs = head(x)
        head.class_embeddings.assign(class_embeddings)
        if classifier_branch:
            x = outputs
            if classifier_base is not None:
                x = _layer_output(keras.Model(images, outputs), classifier_base)
            x = keras.layers.ReLU(name="relu_prob")(x)
            x = BatchNormalization(name="bn_prob")(x)
            outputs = {"embedding": outputs, "prob": probabilities(x, _BRANCH_WEIGHT_DECAY)}

    return ImageClassifier(
        images,
        outputs,
        class_names=[str(name) for name in class_names],
        class_ids=[i if isinstance(i, str) else int(i) for i in class_ids],
        info=info,
        name=architecture,
    )


def save_model(model: ImageClassifier, path: str | os.PathLike) -> None:
    """Writes a `.keras` file that is complete in itself."""
    with atomic_path(path) as temporary, _in_this_process():
        _uncompiled(model).save(temporary)


def save_weights(model: ImageClassifier, path: str | os.PathLike) -> None:
    """Writes the weights alone, as a `.weights.h5` file."""
    with atomic_path(path) as temporary, _in_this_process():
        _uncompiled(model).save_weights(temporary)


@contextlib.contextmanager
def _in_this_process() -> Iterator[None]:
    """Within it nothing waits for other processes, which do not write.

    Keras makes variables to save a model, and several processes make them together.
    """
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def _uncompiled(model: ImageClassifier) -> ImageClassifier:
    """The same layers in a model without the optimiser's and the metrics' state.

    With that state a file is nearly twice as large.
    """
    return ImageClassifier(
        model.input,
        model.output,
        class_names=model.class_names,
        class_ids=model.class_ids,
        info=model.info,
        name=model.name,
    )


def load_model(path: str | os.PathLike) -> ImageClassifier:
    """Reads a model that `save_model` wrote; nothing in the file is run.

    Raises:
        UserError: The file cannot be read, or holds no image classifier.
    """
    try:
        model = model_files.read_model(path)
        _check_classes(model)
    except UserError:
        raise
    except Exception as error:  # Keras raises nearly anything for a damaged file
        reason = model_files.reason(error)
        raise UserError(f"{path}: not a model that can be read ({reason})") from None
    return model


def _check_classes(model: ImageClassifier) -> None:
    """Refuses a model whose outputs, class embeddings, class names and ids do not agree."""
    names, ids, head = model.class_names, model.class_ids, model.embedding_head
    outputs = model.named_outputs(model.output)
    widths = {name: output.shape[1:] for name, output in outputs.items()}
    known = ({"prob"},) if head is None else ({"embedding"}, {"embedding", "prob"})
    if widths.keys() not in known:
        raise ValueError(f"its outputs are {', '.join(map(str, widths)) or 'none'}")
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError("it does not name its classes")
    if len(ids) not in (0, len(names)) or not all(isinstance(i, int | str) for i in ids):
        raise ValueError(f"it has {len(ids)} class ids for {len(names)} classes")
    if widths.get("prob", (len(names),)) != (len(names),):
        raise ValueError(f"it gives probabilities of shape {widths['prob']} for {len(names)} names")
    if head and head.class_embeddings.shape != (len(names), *widths["embedding"]):
        raise ValueError(
            f"it has class embeddings of shape {tuple(head.class_embeddings.shape)} for "
            f"{len(names)} classes and embeddings of shape {widths['embedding']}"
        )


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
            f"gives shape {layer.output.shape}; use avg_pool or a later layer"
        )
    return layer.output
