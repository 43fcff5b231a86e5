import keras
import pytest

import models


@pytest.fixture(scope="module")
def pooled_model():
    """A model for images of any size."""
    images = keras.Input((None, None, 3), name="image")
    x = keras.layers.Conv2D(4, 3, name="conv")(images)
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = keras.layers.Dense(3, name="embedding")(x)
    x = models.EmbeddingOutput(5, name="head")(x)
    return models.ImageClassifier(images, x, class_names=list("abcde"), info={"image_size": 8})
