"""Batch normalisation on 1, 2 and 4 devices: the same numbers, step after step."""

import re
from importlib.util import find_spec

import numpy as np
import pytest

from ..programs import run

# Each backend makes its devices at its start, hence the processes.
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
    run("-c", MIRRORED, tmp_path / "results.npz")
    check_results(dict(np.load(tmp_path / "results.npz")))


@pytest.mark.skipif(find_spec("jax") is None, reason="needs JAX")
def test_devices_equal_groups_under_data_parallel(tmp_path):
    four = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    run("-c", DATA_PARALLEL, tmp_path / "results.npz", backend="jax", environment=four)
    results = dict(np.load(tmp_path / "results.npz"))
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
