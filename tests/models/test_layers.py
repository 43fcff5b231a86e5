import keras
import numpy as np
import pytest

from models.layers import BatchNormalization, PadChannels, Standardize

MOMENTUM, EPSILON = 0.99, 1e-3


def numpy_of(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))


class OriginalRunningAverage:
    """Keras 2.2 on TensorFlow 1.8, in float64: `moving_averages.assign_moving_average`."""

    def __init__(self, channels):
        self.biased, self.steps = np.zeros(channels), 0

    def update(self, value):
        self.biased -= (self.biased - value) * (1 - MOMENTUM)
        self.steps += 1
        return self.biased / (1 - MOMENTUM**self.steps)


# Standardisation


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("channel_order", ["rgb", "bgr"])
def test_standardize(dtype, channel_order):
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype(dtype)
    mean, std = [120.5, 110.25, 90.125], [60.0, 55.5, 70.25]
    layer = Standardize(mean, std, std_epsilon=0.5, channel_order=channel_order)

    expected = (images.astype(float) - mean) / (np.array(std) + 0.5)
    if channel_order == "bgr":
        expected = expected[..., ::-1]
    np.testing.assert_allclose(numpy_of(layer(images)), expected, rtol=1e-6, atol=1e-6)


def test_standardize_rounds_only_its_result(policy):
    # 200.4 is not a bfloat16: rounding the image before subtracting the mean would show.
    images = np.full((1, 1, 1, 3), 200.4, "float32")
    layer = Standardize([200.0] * 3, [1.0] * 3)
    result = layer(images)
    assert keras.backend.standardize_dtype(result.dtype) == layer.compute_dtype
    np.testing.assert_allclose(numpy_of(result), 0.4, rtol=1e-2)


def test_standardize_config():
    layer = Standardize([1, 2, 3], [4, 5, 6], 1e-7, "bgr")
    copy = Standardize.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    with pytest.raises(ValueError, match="channel_order"):
        Standardize([1, 2, 3], [4, 5, 6], channel_order="grb")
    with pytest.raises(ValueError, match="3 values"):
        Standardize([1], [4])


# Padding of channels


def test_pad_channels():
    features = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype("float32")
    layer = PadChannels(6)
    padded = numpy_of(layer(features))
    assert padded.shape == (2, 3, 5, 10) == layer.compute_output_shape(features.shape)
    np.testing.assert_array_equal(padded[..., 3:7], features)
    assert not padded[..., :3].any()
    assert not padded[..., 7:].any()


def test_pad_channels_refuses_uneven_halves():
    with pytest.raises(ValueError, match="even"):
        PadChannels(3)


# Batch normalisation


@pytest.mark.parametrize("shape", [(6, 4, 5, 3), (7, 3)])
def test_batch_normalization_as_the_original(shape, path):
    """Outputs and running averages over several steps, against the original in float64."""
    rng = np.random.default_rng(0)
    layer = BatchNormalization()
    layer.build(shape)
    gamma, beta = rng.normal(size=3), rng.normal(size=3)
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    mean_average, variance_average = OriginalRunningAverage(3), OriginalRunningAverage(3)
    axes = tuple(range(len(shape) - 1))
    n = np.prod(shape[:-1])

    for _ in range(5):
        batch = rng.normal([1.0, -2.0, 0.5], [0.5, 3.0, 1e-2], shape)
        mean, variance = batch.mean(axes), batch.var(axes)
        expected = gamma * (batch - mean) / np.sqrt(variance + EPSILON) + beta
        np.testing.assert_allclose(
            numpy_of(layer(batch, training=True)), expected, rtol=2e-5, atol=2e-5
        )

        unbiased = variance * n / (n - 1 - EPSILON)
        if len(shape) == 4:
            unbiased *= n / (n - 1)
        expected_mean = mean_average.update(mean)
        expected_variance = variance_average.update(unbiased)
        np.testing.assert_allclose(numpy_of(layer.moving_mean), expected_mean, rtol=2e-5)
        np.testing.assert_allclose(numpy_of(layer.moving_variance), expected_variance, rtol=2e-5)

    expected = gamma * (batch - expected_mean) / np.sqrt(expected_variance + EPSILON) + beta
    np.testing.assert_allclose(numpy_of(layer(batch)), expected, rtol=2e-5, atol=2e-5)


def test_first_step_gives_the_batch_statistics():
    batch = np.array([[1.0], [4.0]], "float32")
    layer = BatchNormalization()
    layer(batch, training=True)
    np.testing.assert_allclose(numpy_of(layer.moving_mean), [2.5], rtol=1e-6)
    np.testing.assert_allclose(numpy_of(layer.moving_variance), [4.5 / (1 - EPSILON)], rtol=1e-6)


@pytest.mark.parametrize("shape", [(3, 4, 5, 2), (6, 2)])
def test_batch_normalization_gradient(shape, path, gradient):
    """Against central differences in float64."""
    rng = np.random.default_rng(1)
    batch = rng.normal(size=shape)
    weights = rng.normal(size=shape)

    def reference(x):
        axes = tuple(range(x.ndim - 1))
        return (weights * (x - x.mean(axes)) / np.sqrt(x.var(axes) + EPSILON)).sum()

    expected = np.zeros(shape)
    for index in np.ndindex(shape):
        step = np.zeros(shape)
        step[index] = 1e-5
        expected[index] = (reference(batch + step) - reference(batch - step)) / 2e-5

    layer = BatchNormalization()
    layer.build(shape)
    factors = weights.astype("float32")

    def function(x):
        outputs, _ = layer.stateless_call(
            layer.trainable_variables, layer.non_trainable_variables, x, training=True
        )
        return keras.ops.sum(outputs * factors)

    result = gradient(function, batch.astype("float32"))
    np.testing.assert_allclose(result, expected, atol=2e-4)


@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (1, 2)])
def test_single_value_per_channel_stays_finite(shape, path):
    layer = BatchNormalization()
    outputs = layer(np.full(shape, 3.0, "float32"), training=True)
    np.testing.assert_allclose(numpy_of(outputs), 0.0, atol=1e-6)
    np.testing.assert_allclose(numpy_of(layer.moving_mean), [3.0, 3.0], rtol=1e-6)
    np.testing.assert_allclose(numpy_of(layer.moving_variance), [0.0, 0.0], atol=1e-6)


def test_statistics_are_float32_in_mixed_precision(policy, path):
    batch = np.random.default_rng(0).normal(100.0, 1.0, (8, 4, 4, 3))
    layer = BatchNormalization()
    outputs = layer(batch, training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == layer.compute_dtype
    for variable in layer.variables:
        assert keras.backend.standardize_dtype(variable.dtype) == "float32"
    rounded = numpy_of(keras.ops.cast(batch, layer.compute_dtype)).astype("float64")
    n = 8 * 4 * 4
    np.testing.assert_allclose(numpy_of(layer.moving_mean), rounded.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(
        numpy_of(layer.moving_variance),
        rounded.var((0, 1, 2)) * n / (n - 1) * n / (n - 1 - EPSILON),
        rtol=1e-4,
    )
    np.testing.assert_allclose(
        numpy_of(outputs),
        (rounded - rounded.mean((0, 1, 2))) / np.sqrt(rounded.var((0, 1, 2)) + EPSILON),
        atol=2e-2,
    )


def test_inference_and_frozen_layers_update_nothing():
    batch = np.random.default_rng(0).normal(5.0, 2.0, (4, 2, 2, 3)).astype("float32")
    layer = BatchNormalization()
    # Before the first step: mean 0, variance 1.
    np.testing.assert_allclose(
        numpy_of(layer(batch, training=False)), batch / np.sqrt(1 + EPSILON), rtol=1e-5
    )
    layer(batch, training=True)
    state = [numpy_of(variable) for variable in layer.non_trainable_variables]
    inference = numpy_of(layer(batch + 1, training=False))
    layer.trainable = False
    np.testing.assert_array_equal(numpy_of(layer(batch + 1, training=True)), inference)
    layer.trainable = True
    for variable, before in zip(layer.non_trainable_variables, state, strict=True):
        np.testing.assert_array_equal(numpy_of(variable), before)


def test_step_is_state_but_no_weight():
    layer = BatchNormalization()
    layer.build((None, 4, 4, 5))
    assert [weight.name for weight in layer.weights] == [
        "gamma",
        "beta",
        "moving_mean",
        "moving_variance",
    ]
    assert layer.count_params() == 20
    assert len(layer.non_trainable_weights) == 2
    assert any(variable is layer.step for variable in layer.non_trainable_variables)
    layer.trainable = False
    assert len(layer.non_trainable_weights) == 4
    assert len(layer.non_trainable_variables) == 5
    weights = [np.full(5, i, "float32") for i in range(4)]
    layer.set_weights(weights)
    np.testing.assert_array_equal(layer.get_weights(), weights)


def test_momentum_outside_its_range_is_refused():
    with pytest.raises(ValueError, match="momentum"):
        BatchNormalization(momentum=1.0)


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
    images = np.random.default_rng(0).normal(3.0, 2.0, (15, 4, 4, 3)).astype("float32")
    model = small_model()
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=jit_compile)
    model.fit(images, np.zeros((15, 2)), batch_size=5, epochs=2, shuffle=False, verbose=0)

    eager = small_model()
    eager.set_weights(model.get_weights())
    for _ in range(2):
        for start in range(0, 15, 5):
            eager(images[start : start + 5], training=True)
    for name in ("images", "vectors"):
        trained, expected = model.get_layer(name), eager.get_layer(name)
        assert float(trained.step) == float(expected.step) == 6
        for ours, theirs in zip(trained.weights, expected.weights, strict=True):
            np.testing.assert_allclose(numpy_of(ours), numpy_of(theirs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_restored_layer_continues_exactly(tmp_path, suffix):
    rng = np.random.default_rng(0)
    batches = [rng.normal(2.0, 3.0, (4, 4, 4, 3)).astype("float32") for _ in range(4)]
    model = small_model()
    for batch in batches[:2]:
        model(batch, training=True)
    path = tmp_path / f"model{suffix}"
    if suffix == ".keras":
        model.save(path)
        restored = keras.models.load_model(path)
    else:
        model.save_weights(path)
        restored = small_model()
        restored.load_weights(path)
    for batch in batches[2:]:
        model(batch, training=True)
        restored(batch, training=True)
    for ours, theirs in zip(model.variables, restored.variables, strict=True):
        np.testing.assert_array_equal(numpy_of(ours), numpy_of(theirs))
    assert float(restored.get_layer("images").step) == 4
