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
    for kind, options in ((optimizers.SGD, {"momentum": 0.9}), (optimizers.AdamW, {})):
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


def test_a_norm_that_is_not_finite_is_not_clipped_away():
    variables = [keras.Variable(np.ones(shape, "float32")) for shape in SHAPES]
    optimizer = optimizers.SGD(RATE, momentum=0.9, global_clipnorm=1.0)
    gradients = [np.ones(shape, "float32") for shape in SHAPES]
    gradients[0][0, 0] = np.inf
    optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], variables)
    assert all(np.isnan(np.array(variable)).all() for variable in variables)
