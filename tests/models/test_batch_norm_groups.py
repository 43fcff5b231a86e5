"""Batch normalisation in groups of consecutive images: what several devices do, done on one."""

from pathlib import Path

import keras
import numpy as np
import pytest

from models import BatchNormalization, set_batch_norm_groups

from .test_layers import small_model

ROOT = Path(__file__).parents[2]
MOMENTUM, EPSILON = 0.99, 1e-3
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
SHAPES = [(8, 4, 5, 3), (8, 3)]


def numpy_of(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))


def layer_for(shape, groups=1) -> BatchNormalization:
    """A layer with other than the initial scale and offset."""
    layer = BatchNormalization()
    layer.build(shape)
    layer.groups = groups
    layer.gamma.assign(np.linspace(0.5, 2.0, shape[-1]))
    layer.beta.assign(np.linspace(-1.0, 1.0, shape[-1]))
    return layer


def reference(batch, groups):
    """In float64, a group at a time.

    Returns:
        The normalised batch without scale and offset, and per group, `(groups, channels)`, the
        mean and the variance for the running averages.
    """
    axes = tuple(range(batch.ndim - 1))
    n = batch[..., 0].size / groups
    outputs, means, variances = [], [], []
    for group in np.split(batch, groups):
        mean, variance = group.mean(axes), group.var(axes)
        outputs.append((group - mean) / np.sqrt(variance + EPSILON))
        means.append(mean)
        variances.append(variance * n / (n - 1 - EPSILON))
        if batch.ndim == 4:
            variances[-1] *= n / (n - 1)
    return np.concatenate(outputs), np.array(means), np.array(variances)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_and_running_averages(shape, groups, path):
    rng = np.random.default_rng(0)
    layer = layer_for(shape, groups)
    gamma, beta = numpy_of(layer.gamma), numpy_of(layer.beta)
    # Groups that differ much, so that statistics of the wrong images would show.
    level = np.arange(8.0).reshape(8, *[1] * (len(shape) - 1))
    biased, updates = np.zeros((2, 3)), 0
    for step in range(1, 5):
        batch = rng.normal([1.0, -2.0, 0.5], [0.5, 3.0, 0.1], shape) * (1 + level) + level
        outputs, mean, variance = reference(batch, groups)
        np.testing.assert_allclose(
            numpy_of(layer(batch, training=True)), gamma * outputs + beta, rtol=5e-5, atol=5e-5
        )
        # As in Keras 2.2: one group after the other.
        for of_group in zip(mean, variance, strict=True):
            biased = MOMENTUM * biased + (1 - MOMENTUM) * np.array(of_group)
            updates += 1
        expected = biased / (1 - MOMENTUM**updates)
        np.testing.assert_allclose(numpy_of(layer.moving_mean), expected[0], rtol=2e-5)
        np.testing.assert_allclose(numpy_of(layer.moving_variance), expected[1], rtol=2e-5)
        assert float(layer.step) == updates == step * groups

    # Inference knows no groups.
    batch = batch[:7]
    expected = gamma * (batch - expected[0]) / np.sqrt(expected[1] + EPSILON) + beta
    np.testing.assert_allclose(numpy_of(layer(batch)), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("shape", [(4, 2, 3, 2), (6, 2)])
def test_gradients(shape, path, gradient):
    """Against central differences in float64; outputs are linear in scale and offset."""
    rng = np.random.default_rng(1)
    batch, weights = rng.normal(size=shape), rng.normal(size=shape)
    layer = layer_for(shape, groups=2)
    gamma, beta = numpy_of(layer.gamma), numpy_of(layer.beta)
    expected = np.zeros(shape)
    for index in np.ndindex(shape):
        step = np.zeros(shape)
        step[index] = 1e-5
        change = reference(batch + step, 2)[0] - reference(batch - step, 2)[0]
        expected[index] = (weights * gamma * change).sum() / 2e-5

    def function(x, gamma, beta):
        outputs, _ = layer.stateless_call(
            [gamma, beta], layer.non_trainable_variables, x, training=True
        )
        return keras.ops.sum(outputs * weights.astype("float32"))

    images = batch.astype("float32")
    result = gradient(lambda x: function(x, gamma, beta), images)
    np.testing.assert_allclose(result, expected, atol=2e-4)
    axes = tuple(range(len(shape) - 1))
    result = gradient(lambda g: function(images, g, beta), gamma)
    np.testing.assert_allclose(result, (weights * reference(batch, 2)[0]).sum(axes), atol=1e-4)
    result = gradient(lambda b: function(images, gamma, b), beta)
    np.testing.assert_allclose(result, weights.sum(axes), atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_group_is_normalised_as_if_alone(shape, policy):
    images = np.random.default_rng(0).normal(3.0, 2.0, shape).astype("float32")
    outputs = numpy_of(layer_for(shape, groups=4)(images, training=True))
    alone = [layer_for(shape)(group, training=True) for group in np.split(images, 4)]
    alone = np.concatenate([numpy_of(part) for part in alone])
    if ON_TENSORFLOW and len(shape) == 4:
        np.testing.assert_array_equal(outputs, alone)
    else:
        np.testing.assert_allclose(outputs, alone, rtol=1e-2 if policy != "float32" else 1e-5)


def test_statistics_are_float32_in_mixed_precision(policy, path):
    batch = np.random.default_rng(0).normal(100.0, 1.0, (8, 4, 4, 3))
    layer = BatchNormalization()
    layer.groups = 4
    outputs = layer(batch, training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == layer.compute_dtype
    rounded = numpy_of(keras.ops.cast(batch, layer.compute_dtype)).astype("float64")
    expected, mean, variance = reference(rounded, 4)
    weights = MOMENTUM ** np.arange(4)[::-1]
    mean, variance = (np.average(values, 0, weights) for values in (mean, variance))
    np.testing.assert_allclose(numpy_of(layer.moving_mean), mean, rtol=1e-5)
    np.testing.assert_allclose(numpy_of(layer.moving_variance), variance, rtol=1e-4)
    np.testing.assert_allclose(numpy_of(outputs), expected, atol=2e-2)


@pytest.mark.parametrize("shape", [(2, 1, 1, 2), (2, 2)])
def test_single_value_per_group_stays_finite(shape, path):
    layer = BatchNormalization()
    layer.groups = 2
    batch = np.full(shape, 3.0, "float32")
    batch[1] = 5.0
    np.testing.assert_allclose(numpy_of(layer(batch, training=True)), 0.0, atol=1e-6)
    expected = (3.0 * MOMENTUM + 5.0) / (MOMENTUM + 1.0)
    np.testing.assert_allclose(numpy_of(layer.moving_mean), expected, rtol=1e-6)
    np.testing.assert_allclose(numpy_of(layer.moving_variance), 0.0, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_that_the_groups_do_not_divide_is_refused(shape, path):
    layer = layer_for(shape, groups=3)
    with pytest.raises(ValueError, match="8 images cannot be normalised in 3 groups"):
        layer(np.zeros(shape, "float32"), training=True)


@pytest.mark.skipif(not ON_TENSORFLOW, reason="JAX knows the size of every batch")
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_of_unknown_size_that_the_groups_do_not_divide_is_refused(shape, path):
    import tensorflow as tf

    layer = layer_for(shape, groups=3)

    @tf.function(input_signature=[tf.TensorSpec((None, *shape[1:]))])
    def normalise(batch):
        return layer(batch, training=True)

    with pytest.raises(tf.errors.InvalidArgumentError):
        normalise(np.zeros(shape, "float32"))
    outputs = normalise(np.zeros((9, *shape[1:]), "float32"))
    np.testing.assert_array_equal(numpy_of(outputs - layer.beta), 0.0)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_training_updates_as_eager(jit_compile):
    images = np.random.default_rng(0).normal(3.0, 2.0, (24, 4, 4, 3)).astype("float32")
    model = small_model()
    set_batch_norm_groups(model, 4)
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=jit_compile)
    model.fit(images, np.zeros((24, 2)), batch_size=8, shuffle=False, verbose=0)

    eager = small_model()
    set_batch_norm_groups(eager, 4)
    eager.set_weights(model.get_weights())
    for start in range(0, 24, 8):
        eager(images[start : start + 8], training=True)
    for name in ("images", "vectors"):
        trained, expected = model.get_layer(name), eager.get_layer(name)
        assert float(trained.step) == float(expected.step) == 12
        for ours, theirs in zip(trained.weights, expected.weights, strict=True):
            np.testing.assert_allclose(numpy_of(ours), numpy_of(theirs), rtol=1e-4, atol=1e-5)


def test_groups_are_set_in_nested_models():
    inner = small_model()
    model = keras.Sequential([keras.Input((4, 4, 3)), BatchNormalization(), inner])
    set_batch_norm_groups(model, 4)
    layers = [model.layers[0], inner.get_layer("images"), inner.get_layer("vectors")]
    assert [layer.groups for layer in layers] == [4, 4, 4]
    with pytest.raises(ValueError, match="groups must be at least 1, not 0"):
        set_batch_norm_groups(model, 0)


def test_saved_model_has_no_groups(tmp_path):
    images = np.random.default_rng(0).normal(3.0, 2.0, (8, 4, 4, 3)).astype("float32")
    model = small_model()
    set_batch_norm_groups(model, 4)
    model(images, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [loaded.get_layer(name).groups for name in ("images", "vectors")] == [1, 1]
    np.testing.assert_array_equal(numpy_of(loaded(images)), numpy_of(model(images)))
    for ours, theirs in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(numpy_of(ours), numpy_of(theirs))
