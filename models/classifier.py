"""The model that is trained, dumped and used: a network with its classes and what it was told."""

import keras
import numpy as np
from keras import ops

from models.heads import EmbeddingOutput


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
