import keras
import numpy as np
import pytest

from training.learning import optimizers

SHAPES = (3, 4), (4,), (2, 3, 1)
RATE = 0.3


def in_float64(weights, gradients, clip_norm, nesterov):
    """The weights and momenta after steps, by the formulas."""
    weights = [weight.astype("float64") for weight in weights]
    momenta = [np.zeros_like(weight) for weight in weights]
    for step in gradients:
        norm = np.sqrt(sum(np.sum(np.square(g, dtype="float64")) for g in step))
        for i, g in enumerate(step):
            change = RATE * g * (min(1, clip_norm / norm) if clip_norm else 1)
            momenta[i] = 0.9 * momenta[i] - change
            weights[i] += 0.9 * momenta[i] - change if nesterov else momenta[i]
    return weights, momenta


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("clip_norm", [None, 2.0, 1e3])
def test_steps_follow_the_formulas(clip_norm, nesterov):
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape).astype("float32") for shape in SHAPES]
    gradients = [[rng.normal(size=s).astype("float32") for s in SHAPES] for _ in range(4)]
    variables = [keras.Variable(weight) for weight in weights]
    optimizer = optimizers.SGD(RATE, momentum=0.9, nesterov=nesterov, global_clipnorm=clip_norm)
    for step in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in step], variables)
    expected, momenta = in_float64(weights, gradients, clip_norm, nesterov)
    ours = [*variables, *optimizer.momentums]
    for variable, array in zip(ours, [*expected, *momenta], strict=True):
        np.testing.assert_allclose(np.array(variable), array, rtol=1e-5, atol=1e-6)


def test_the_variables_are_those_of_keras():
    # Snapshots hold them by their order.
    variables = [keras.Variable(np.ones(shape, "float32"), name=str(shape)) for shape in SHAPES]
    ours, of_keras = (
        kind(momentum=0.9, gradient_accumulation_steps=2)
        for kind in (optimizers.SGD, keras.optimizers.SGD)
    )
    for optimizer in (ours, of_keras):
        optimizer.build(variables)
    forms = [[(v.shape, v.dtype) for v in kind.variables] for kind in (ours, of_keras)]
    assert forms[0] == forms[1]


def test_averages_follow_the_formula_and_leave_the_weights_alone():
    rng = np.random.default_rng(0)
    start = [rng.normal(size=shape).astype("float32") for shape in SHAPES]
    for kind, options in (
        (optimizers.SGD, {"momentum": 0.9}),
        (optimizers.AdamW, {}),
        (optimizers.Muon, {}),
    ):
        variables = [keras.Variable(weight) for weight in start]
        optimizer = kind(RATE, use_ema=True, ema_momentum=0.7, **options)
        expected = None
        for _ in range(4):
            gradients = [rng.normal(size=shape).astype("float32") for shape in SHAPES]
            optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], variables)
            now = [np.array(variable, "float64") for variable in variables]
            expected = expected or now
            expected = [0.7 * old + 0.3 * new for old, new in zip(expected, now, strict=True)]
        optimizer.finalize_variable_values(variables)
        averages = optimizer._model_variables_moving_average
        for variable, weight, average, wanted in zip(
            variables, now, averages, expected, strict=True
        ):
            np.testing.assert_array_equal(np.array(variable), weight.astype("float32"))
            np.testing.assert_allclose(np.array(average), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
def test_muon_follows_the_formulas(nesterov):
    rng = np.random.default_rng(0)
    tall, flat, vector = (
        rng.normal(size=s).astype("float32") for s in ((3, 3, 2, 5), (1, 1, 4, 9), (6,))
    )
    starts = tall, flat, vector
    variables = [keras.Variable(start) for start in starts]
    optimizer = optimizers.Muon(
        RATE, nesterov=nesterov, weight_decay=0.2, adam_weight_decay=0.2, momentum=0.95
    )
    expected = [start.astype("float64") for start in starts]
    momenta = [np.zeros(start.shape) for start in starts]
    squares = np.zeros(vector.shape)
    for step in range(1, 4):
        gradients = [rng.normal(size=start.shape).astype("float32") for start in starts]
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], variables)
        for i, gradient in enumerate(gradients):
            expected[i] *= 1 - RATE * 0.2
            if i < 2:
                momenta[i] = 0.95 * momenta[i] + gradient
                direction = gradient + 0.95 * momenta[i] if nesterov else momenta[i]
                matrix = direction.reshape(-1, direction.shape[-1])
                change = orthogonal(matrix) * 0.2 * np.sqrt(max(matrix.shape))
                expected[i] -= RATE * change.reshape(direction.shape)
            else:
                momenta[i] = 0.9 * momenta[i] + 0.1 * gradient
                squares = 0.999 * squares + 0.001 * np.square(gradient, dtype="float64")
                mean, square = momenta[i] / (1 - 0.9**step), squares / (1 - 0.999**step)
                expected[i] -= RATE * mean / (np.sqrt(square) + 1e-7)
    for variable, wanted in zip(variables, expected, strict=True):
        np.testing.assert_allclose(np.array(variable), wanted, rtol=1e-4, atol=1e-5)


def orthogonal(matrix):
    """Muon's polynomial of the singular values, five times, which brings them near to 1."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    values = values / np.sqrt(np.sum(values**2))
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    np.testing.assert_allclose(values, 1, atol=0.35)
    return left * values @ right


def test_a_norm_that_is_not_finite_is_not_clipped_away():
    variables = [keras.Variable(np.ones(shape, "float32")) for shape in SHAPES]
    optimizer = optimizers.SGD(RATE, momentum=0.9, global_clipnorm=1.0)
    gradients = [np.ones(shape, "float32") for shape in SHAPES]
    gradients[0][0, 0] = np.inf
    optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], variables)
    assert all(np.isnan(np.array(variable)).all() for variable in variables)
