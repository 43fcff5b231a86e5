"""The running averages that the layers of a network update together at the end of a step."""

import keras
import numpy as np
import pytest

from models import BatchNormalization, ImageClassifier, running_averages


def compiled(make_model, momentum=0.9):
    """A network whose normalisations differ in all that their updates depend on."""
    keras.utils.set_random_seed(0)
    images = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(images)
    x = BatchNormalization(name="first")(x)
    x = BatchNormalization(momentum, 1e-5, affine=False, name="second")(x)
    twice = BatchNormalization(0.8, name="twice")
    x = keras.layers.ReLU()(twice(keras.layers.ReLU()(twice(x))))
    frozen = BatchNormalization(name="frozen")
    frozen.trainable = False
    x = keras.layers.Conv2D(5, 3)(frozen(x))
    x = BatchNormalization(0.9, name="groups")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = BatchNormalization(name="vectors")(x)
    model = make_model(images, keras.layers.Dense(2, "softmax", name="prob")(x))
    model.get_layer("groups").groups = 2
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    return model


def classifier(inputs, outputs):
    return ImageClassifier(inputs, outputs, class_names="ab", class_ids=(0, 1), info={})


def train(model, steps=3):
    rng = np.random.default_rng(0)
    for _ in range(steps):
        images = rng.normal(2.0, 3.0, (8, 6, 6, 3)).astype("float32")
        model.train_on_batch(images, rng.integers(0, 2, 8))
    return model


def test_together_as_one_by_one():
    together, one_by_one = train(compiled(classifier)), train(compiled(keras.Model))

    assert [float(layer.step) for layer in together.layers if hasattr(layer, "step")] == [
        *(3, 3, 6, 0, 6, 3)
    ]
    pairs = zip(together.variables, one_by_one.variables, strict=True)
    for ours, expected in pairs:
        if "seed" not in ours.path:
            np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=1e-6, err_msg=ours.path)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX updates at once")
def test_updates_wait_for_the_end_and_not_after_an_error():
    layer = BatchNormalization()
    batch = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    with running_averages.updated_together():
        layer(batch, training=True)
        assert float(layer.step) == 0
    assert float(layer.step) == 1

    @running_averages.updated_together()
    def failing_step():
        layer(batch, training=True)
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        failing_step()
    assert float(layer.step) == 1
    layer(batch, training=True)
    assert float(layer.step) == 2
