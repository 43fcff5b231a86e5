"""The network that has the averages of the weights."""

import keras
import numpy as np
import pytest

from training import data
from training.flags import arguments
from training.learning import averaging, losses

from ..small_run import Run


def test_a_half_life_is_one():
    momentum = averaging.momentum(2000, 50)
    assert momentum ** (2000 / 50) == pytest.approx(0.5)


@pytest.fixture(scope="module")
def trained():
    return Run(["--epochs", "2", "--ema", "400", "--batch_size", "50"])


def test_the_network_gets_the_averages_and_statistics_of_its_own(trained, monkeypatch):
    model = trained.model
    optimizer = model.optimizer
    assert optimizer.ema_momentum == pytest.approx(0.5 ** (50 / 400))
    averages = [np.array(v) for v in optimizer._model_variables_moving_average]
    last = [np.array(v) for v in model.trainable_variables]
    assert not any(np.array_equal(a, b) for a, b in zip(averages, last, strict=True))

    monkeypatch.setattr(averaging, "IMAGES", 400)
    args = arguments.check_training_arguments(
        arguments.training_parser().parse_args(["--batch_size", "50"])
    )
    batches = data.make_batches(args, data.load_dataset(args)).train
    momentum = model.get_layer("bn").momentum
    averaging.use_averages(model, batches, epoch=2)
    for variable, average in zip(model.trainable_variables, averages, strict=True):
        np.testing.assert_array_equal(np.array(variable), average)
    assert model.info["weights"] == "averaged"
    assert model.get_layer("bn").momentum == momentum

    # The statistics of eight batches of an epoch that was not trained.
    [images] = model.inputs
    convolved = keras.Model(images, model.get_layer("conv").output)
    batches.start_at(2, 0)
    values = [np.array(convolved(batches[i][0]), "float64") for i in range(8)]
    mean = np.mean([x.mean(axis=(0, 1, 2)) for x in values], axis=0)
    variance = np.mean([x.var(axis=(0, 1, 2), ddof=1) for x in values], axis=0)
    bn = model.get_layer("bn")
    np.testing.assert_allclose(np.array(bn.moving_mean), mean, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(np.array(bn.moving_variance), variance, rtol=2e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("on", ["kernels", "all"])
def test_decoupled_decay_shrinks_kernels_or_all(on, optimizer):
    flags = ["--optimizer", optimizer, "--weight_decay", "0.1", "--clipgrad", "0"]
    flags += ["--weight_decay_on", on]
    args = arguments.check_training_arguments(arguments.training_parser().parse_args(flags))
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(2, activation="softmax", bias_initializer="ones")(inputs)
    model = classifier(inputs, outputs)
    losses.compile_model(args, model)
    model.optimizer.learning_rate = 0.5
    before = [np.array(v) for v in model.trainable_variables]
    zeros = [keras.ops.zeros(v.shape) for v in model.trainable_variables]
    model.optimizer.apply(zeros, model.trainable_variables)
    kernel, bias = (np.array(v) for v in model.trainable_variables)
    shrunk = 1 - 0.5 * 2 * 0.1
    np.testing.assert_allclose(kernel, before[0] * shrunk, rtol=1e-6)
    np.testing.assert_allclose(bias, before[1] * (shrunk if on == "all" else 1), rtol=1e-6)


def classifier(inputs, outputs):
    import models

    info = {"loss": "cross_entropy", "cls_weight": 0, "label_smoothing": 0}
    return models.ImageClassifier(inputs, outputs, class_names=["a", "b"], info=info)
