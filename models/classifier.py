"""The model that is trained, dumped and used: a network with its classes and what it was told."""

import os
from collections.abc import Iterable, Iterator

import keras
import numpy as np
from keras import ops
from PIL import Image

import scoring
from foreign_files import image_files
from models import calibration, running_averages
from models.heads import EmbeddingOutput
from models.replicas import num_replicas
from scoring import View
from utils import UserError


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

    # Under which files name the class, wherever its code is.
    __module__ = "models"

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

    @property
    def gives_probabilities(self) -> bool:
        """Whether `class_scores` are probabilities, and not similarities to class embeddings."""
        return "prob" in self.named_outputs(self.output)

    @property
    def temperature(self) -> float | None:
        """What `probabilities` divides by, kept in `info`; `None` before it was fitted."""
        return self.info.get("temperature") if isinstance(self.info, dict) else None

    @temperature.setter
    def temperature(self, value: float | None) -> None:
        if value is not None and not calibration.is_temperature(value):
            raise ValueError(f"a temperature must be a number from 0.0001 to 10000, not {value!r}")
        info = {key: fact for key, fact in (self.info or {}).items() if key != "temperature"}
        self.info = info if value is None else {**info, "temperature": float(value)}

    def probabilities(self, scores) -> np.ndarray:
        """Calibrated probabilities of the classes from their scores.

        Those of a classifier without a temperature stay as they are. See `models.calibration`.

        Args:
            scores: `(n, C)`, see `class_scores`.

        Returns:
            `(n, C)`, float64.

        Raises:
            ValueError: The scores are similarities and the model has no temperature.
        """
        if self.temperature is None and not self.gives_probabilities:
            raise ValueError(
                "the model gives similarities, of which only a temperature makes probabilities"
            )
        logits = calibration.logits(scores, probabilities=self.gives_probabilities)
        return calibration.softmax(logits, self.temperature or 1.0)

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

    @property
    def view(self) -> View:
        """What the network sees of an image.

        Raises:
            ValueError: The model does not know its own size of images.
        """
        return View.of(self.info)

    def preprocess(self, image: str | os.PathLike | Image.Image | np.ndarray) -> np.ndarray:
        """What the network sees of an image: resized and cropped as in evaluation.

        Args:
            image: The path of a file, a Pillow image, or RGB pixels, uint8 `(height, width, 3)`.

        Returns:
            uint8 `(S, S, 3)`, of the side S that the network was trained on.

        Raises:
            UserError: The file cannot be read as an image, or holds values of unknown range.
            ValueError: It is no image, or the model does not know its own size of images.
        """
        return self.view.preprocess(image)

    def classify(self, images, batch_size: int = 32) -> tuple[np.ndarray, np.ndarray]:
        """Predicts the classes of decoded images; for files there is `classify_files`.

        Args:
            images: `(n, S, S, 3)`, RGB, 0–255, uint8 or float, of the side S that the network was
                trained on, are taken as they are. All else goes through `preprocess` first: uint8
                of another size, or a list of arrays and Pillow images of any sizes.
            batch_size: Images at a time.

        Returns:
            Class indices `(n,)` and scores `(n, C)` (see `batch_scores`).

        Raises:
            ValueError: They are no images, or floats of another range, as from 0 to 1.
        """
        images = self._sized(images)
        if not len(images):
            return np.empty(0, np.int64), np.empty((0, len(self.class_names)), np.float32)
        scores = self._shown_scores(self.predict(images, batch_size=batch_size, verbose=0))
        return scores.argmax(axis=-1), scores

    def _sized(self, images) -> np.ndarray:
        """Images as one array, of the size that the network was trained on."""
        if hasattr(images, "shape"):
            if len(images.shape) != 4 or images.shape[3] != 3:
                raise ValueError(
                    f"images must be (n, height, width, 3), not {tuple(images.shape)}; for a "
                    "single one write classify([image])"
                )
            side = self.info.get("image_size") if isinstance(self.info, dict) else None
            if side is None or tuple(images.shape[1:3]) == (side, side):
                _check_range(ops.convert_to_numpy(images))
                return images
        views = [self.preprocess(image) for image in images]
        return np.stack(views) if views else np.empty((0, 1, 1, 3), np.uint8)

    def classify_files(
        self, paths: Iterable[str | os.PathLike], batch_size: int = 32
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predicts the classes of image files, with the numbers of `predict.py`.

        Args:
            paths: The files, or a single one.
            batch_size: Images at a time; the next ones are decoded meanwhile.

        Returns:
            Class indices `(n,)` and scores `(n, C)` (see `batch_scores`).

        Raises:
            UserError: A file cannot be read as an image. `score_files` goes on with the others.
        """
        if isinstance(paths, str | os.PathLike):
            paths = [paths]
        rows = []
        for _, scores in self.score_files(paths, batch_size):
            if isinstance(scores, UserError):
                raise scores
            rows.append(scores)
        scores = np.stack(rows) if rows else np.empty((0, len(self.class_names)), np.float32)
        return scores.argmax(axis=-1), scores

    def score_files(
        self, paths: Iterable[str | os.PathLike], batch_size: int = 32, *, mirrored: bool = False
    ) -> Iterator[tuple[str | os.PathLike, np.ndarray | UserError]]:
        """The scores of image files, file by file, as soon as their batch is done.

        Warns of images of which the network sees one colour or nearly nothing.

        Args:
            paths: The files.
            batch_size: Images at a time; the next ones are decoded meanwhile.
            mirrored: Give the means of the scores of each image and its mirror image.

        Yields:
            Each path with its scores `(C,)`, or with the reason why it cannot be read.
        """
        return scoring.score_files([self], paths, batch_size, mirrored=mirrored)

    @property
    def scores_are_probabilities(self) -> bool:
        """Whether `batch_scores` are probabilities, and not similarities to class embeddings."""
        return self.gives_probabilities or self.temperature is not None

    def batch_scores(self, images: np.ndarray) -> np.ndarray:
        """The scores `(n, C)` of images `(n, S, S, 3)` that `preprocess` gave.

        They are calibrated probabilities where the model has a temperature, and otherwise its
        `class_scores`.
        """
        return self._shown_scores(self.predict_on_batch(images))

    def _shown_scores(self, outputs) -> np.ndarray:
        scores = ops.convert_to_numpy(self.class_scores(outputs))
        return scores if self.temperature is None else self.probabilities(scores)

    def compile(self, *args, **kwargs):
        """As in Keras; adds the metric `mean_loss`, see `compute_loss`."""
        super().compile(*args, **kwargs)
        if not hasattr(self, "_mean_loss"):
            self._mean_loss = keras.metrics.Mean(name="mean_loss")

    def train_step(self, *args, **kwargs):
        """As in Keras."""
        with running_averages.updated_together():
            return super().train_step(*args, **kwargs)

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

    def _get_regularization_losses(self):
        # As in Keras, but the penalties of one λ come as their sum: of three operations for each
        # kernel one is left, and fewer for its gradient. A step starts the sooner for it.
        if keras.backend.backend() != "tensorflow":
            return super()._get_regularization_losses()
        import tensorflow as tf

        losses, decayed = [], {}
        for weight in self.trainable_weights:
            if isinstance(weight.regularizer, keras.regularizers.L2):
                decayed.setdefault(weight.regularizer.l2, []).append(weight.value)
            elif weight.regularizer is not None:
                losses.append(weight.regularizer(weight))
        for l2, weights in decayed.items():
            losses.append(2.0 * l2 * tf.add_n([tf.nn.l2_loss(weight) for weight in weights]))
        return losses

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


def _check_range(images: np.ndarray) -> None:
    """Refuses floats that are scaled or normalised already, of which the network would see black.

    Raises:
        ValueError: No value is above 15, and they are not all the same.
    """
    if images.dtype.kind != "f" or not images.size:
        return
    least, most = images.min(), images.max()
    if not most > image_files.BLACK and least != most:
        raise ValueError(
            f"images must have values from 0 to 255, not from {least:g} to {most:g}: scale them, "
            "without normalising, which the model does itself"
        )


def pooling_layer(model: keras.Model) -> keras.layers.Layer:
    """The layer that makes one vector of the maps of an image: their means, or their maxima."""
    kinds = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)
    return next(layer for layer in model.layers if isinstance(layer, kinds))
