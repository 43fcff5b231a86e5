"""Batch normalisation in groups of consecutive images: what several devices do, done on one."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest

from models import BatchNormalization, set_batch_norm_groups

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


def small_model():
    return keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            BatchNormalization(name="images"),
            keras.layers.GlobalAveragePooling2D(),
            BatchNormalization(name="vectors"),
            keras.layers.Dense(2),
        ]
    )


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


# Several devices. Each backend makes them at its start, hence the processes.

COMMON = """
import os
import sys

import keras
import numpy as np

from models import BatchNormalization, set_batch_norm_groups

rng = np.random.default_rng(0)
IMAGES = rng.normal(size=(3, 8, 4, 4, 3)).astype("float32") + np.arange(8).reshape(8, 1, 1, 1)
WEIGHTS = rng.normal(size=(8, 5)).astype("float32")
results = {}

def model_in(groups):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        keras.Input((4, 4, 3)),
        BatchNormalization(),
        keras.layers.Conv2D(4, 3),
        BatchNormalization(),
        keras.layers.GlobalAveragePooling2D(),
        BatchNormalization(),
        keras.layers.Dense(5),
    ])
    set_batch_norm_groups(model, groups)
    return model

def keep(key, outputs, gradients, model):
    state = [v for v in model.variables if not v.trainable and "seed" not in v.path]
    for kind, values in ("outputs", outputs), ("gradients", gradients), ("state", state):
        for i, value in enumerate(values):
            results[f"{key} {kind} {i}"] = keras.ops.convert_to_numpy(value)
"""

MIRRORED = (
    COMMON
    + """
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 4
)
for devices in (1, 2, 4):
    strategy = tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(devices)], tf.distribute.ReductionToOneDevice()
    )
    with strategy.scope():
        model = model_in(4 // devices)

    def replica(images, weights):
        with tf.GradientTape() as tape:
            outputs = model(images, training=True)
            value = tf.reduce_sum(outputs * weights)
        return outputs, tape.gradient(value, [v.value for v in model.trainable_variables])

    @tf.function
    def step(images, weights):
        return strategy.run(replica, (images, weights))

    def shares(array):
        parts = np.split(array, devices)
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group])
        )

    for images in IMAGES:
        outputs, gradients = step(shares(images), shares(WEIGHTS))
    outputs = tf.concat(strategy.experimental_local_results(outputs), 0)
    gradients = [strategy.reduce("SUM", gradient, axis=None) for gradient in gradients]
    keep(devices, [outputs], gradients, model)
np.savez(sys.argv[1], **results)
"""
)

DATA_PARALLEL = (
    COMMON
    + """
import jax

programs = {}
for devices in (1, 2, 4):
    distribution = keras.distribution.DataParallel(
        devices=keras.distribution.list_devices()[:devices]
    )
    keras.distribution.set_distribution(distribution)
    model = model_in(4)

    def shares(array):
        layout = distribution.get_data_layout(array.shape).backend_layout
        return jax.device_put(array, layout)

    def function(trainable, state, images, weights):
        outputs, state = model.stateless_call(trainable, state, images, training=True)
        return jax.numpy.sum(outputs * weights), (outputs, state)

    step = jax.jit(jax.grad(function, has_aux=True))
    trainable = [v.value for v in model.trainable_variables]
    state = [v.value for v in model.non_trainable_variables]
    programs[devices] = step.lower(trainable, state, shares(IMAGES[0]), shares(WEIGHTS)).compile()
    for images in IMAGES:
        gradients, (outputs, state) = programs[devices](
            trainable, state, shares(images), shares(WEIGHTS)
        )
    for variable, value in zip(model.non_trainable_variables, state, strict=True):
        variable.assign(value)
    keep(devices, [outputs], gradients, model)
np.savez(sys.argv[1], **results, program2=programs[2].as_text(), program4=programs[4].as_text())
"""
)


def results_of(code, file, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(file))


def check_results(results):
    """2 and 4 devices against 1: outputs, gradients, running averages and steps."""
    expected = {key[2:]: value for key, value in results.items() if key[:2] == "1 "}
    assert len(expected) == 1 + 10 + 9
    steps = [value for key, value in expected.items() if value.ndim == 0]
    np.testing.assert_array_equal(steps, [12, 12, 12])
    for devices in (2, 4):
        for key, value in expected.items():
            np.testing.assert_allclose(
                results[f"{devices} {key}"], value, rtol=1e-4, atol=2e-5, err_msg=key
            )


@pytest.mark.skipif(find_spec("tensorflow") is None, reason="needs TensorFlow")
def test_replicas_equal_groups_under_mirrored_strategy(tmp_path):
    check_results(results_of(MIRRORED, tmp_path / "results.npz", KERAS_BACKEND="tensorflow"))


@pytest.mark.skipif(find_spec("jax") is None, reason="needs JAX")
def test_devices_equal_groups_under_data_parallel(tmp_path):
    results = results_of(
        DATA_PARALLEL,
        tmp_path / "results.npz",
        KERAS_BACKEND="jax",
        XLA_FLAGS="--xla_force_host_platform_device_count=4",
    )
    programs = [str(results.pop(f"program{devices}")) for devices in (2, 4)]
    check_results(results)
    # Statistics of a group stay on its device: what the devices exchange are sums of gradients
    # and of running averages, in the shapes of variables, and never features.
    shapes_of_variables = {(3,), (4,), (3, 3, 3, 4), (4, 5), (5,)}
    for program in programs:
        exchanged = re.findall(
            r"= (.*?) (all-gather|all-reduce|all-to-all|collective-\w+|reduce-scatter)\S*\(",
            program,
        )
        assert {operation for _, operation in exchanged} == {"all-reduce"}
        shapes = re.findall(r"\w+\[([\d,]*)\]", " ".join(shapes for shapes, _ in exchanged))
        shapes = [[int(side) for side in shape.split(",")] for shape in shapes]
        # Without axes of length 1, and whatever the order: a kernel's gradient may be transposed.
        shapes = {tuple(sorted(side for side in shape if side > 1)) for shape in shapes}
        assert shapes == shapes_of_variables
