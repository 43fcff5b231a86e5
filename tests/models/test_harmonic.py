"""Harmonic convolutions against loops in float64, and folded networks against what they were."""

import math

import keras
import numpy as np
import pytest
from keras import ops
from scipy.signal import correlate2d

from architectures import ARCHITECTURES
from models import (
    BatchNormalization,
    EmbeddingHead,
    HarmonicConv2D,
    HarmonicFilters,
    build_model,
    fold,
    load_model,
    save_model,
)
from models.harmonic import cosine_filters

from ..shallow import make_shallow
from .test_build_model import images_of

NAMES = ["a", "b", "c"]


def cosine_filter(size, i, j):
    """One filter, entry by entry."""
    entries = [
        [
            math.cos(math.pi * (y + 0.5) * i / size) * math.cos(math.pi * (x + 0.5) * j / size)
            for x in range(size)
        ]
        for y in range(size)
    ]
    total = sum(abs(entry) for row in entries for entry in row)
    return np.array(entries) / total


def correlated(image, kernel, strides, mode):
    """`(h, w, c)` by `(k, k, c, o)`, as a convolution layer does it."""
    maps = [
        sum(correlate2d(image[..., c], kernel[..., c, o], mode) for c in range(image.shape[-1]))
        for o in range(kernel.shape[-1])
    ]
    return np.stack(maps, -1)[::strides, ::strides]


@pytest.mark.parametrize("size", [2, 3, 7])
def test_filters(size):
    bank = cosine_filters(size)
    for i in range(size):
        for j in range(size):
            expected = cosine_filter(size, i, j)
            np.testing.assert_allclose(bank[..., i * size + j], expected, atol=1e-16)


@pytest.mark.parametrize(("size", "strides", "padding"), [(3, 1, "same"), (5, 2, "valid")])
def test_a_harmonic_convolution_and_its_gradient(size, strides, padding, gradient):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(9, 8, 2))
    layer = HarmonicConv2D(4, size, strides=strides, padding=padding)
    layer.build((None, 9, 8, 2))
    coefficients = rng.normal(size=(size, size, 2, 4))
    bias = rng.normal(size=4)
    kernel = sum(
        cosine_filter(size, i, j)[:, :, None, None] * coefficients[i, j]
        for i in range(size)
        for j in range(size)
    )
    layer.kernel.assign(coefficients)
    layer.bias.assign(bias)
    result = ops.convert_to_numpy(layer(image[None].astype("float32")))[0]
    expected = correlated(image, kernel, strides, padding) + bias
    np.testing.assert_allclose(result, expected, atol=1e-5)

    # The output is linear in the coefficients: the gradient of one is its filter's response.
    weights = rng.normal(size=expected.shape)

    def function(values):
        outputs, _ = layer.stateless_call(
            [values, layer.bias.value], [], image[None].astype("float32")
        )
        return ops.sum(outputs[0] * ops.convert_to_tensor(weights, "float32"))

    found = gradient(function, coefficients.astype("float32"))
    for i, j, channel in [(0, 0, 0), (1, 2, 1), (size - 1, size - 1, 0)]:
        one = cosine_filter(size, i, j)[:, :, None, None]
        response = correlated(image[..., channel : channel + 1], one, strides, padding)
        expected = (weights * response).sum((0, 1))
        np.testing.assert_allclose(found[i, j, channel], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "strides", "padding"), [(3, 1, "same"), (7, 2, "valid")])
def test_the_filters_of_every_channel(size, strides, padding):
    image = np.random.default_rng(0).normal(size=(12, 11, 2))
    layer = HarmonicFilters(size, strides, padding)
    result = ops.convert_to_numpy(layer(image[None].astype("float32")))
    assert layer.compute_output_shape((1, 12, 11, 2)) == result.shape
    for channel in range(2):
        for i in range(size):
            for j in range(size):
                one = cosine_filter(size, i, j)[:, :, None, None]
                expected = correlated(image[..., channel : channel + 1], one, strides, padding)
                found = result[0, ..., channel * size**2 + i * size + j]
                np.testing.assert_allclose(found, expected[..., 0], atol=1e-6)
    assert not layer.weights


@pytest.mark.parametrize("architecture", ["fast-cnn", "resnet-32", "resnet-50", "simple"])
@pytest.mark.parametrize("harmonic", ["first", "all"])
def test_which_convolutions_become_harmonic(architecture, harmonic):
    with keras.StatelessScope(initialize_variables=False):
        plain = build_model(architecture, NAMES)
        model = build_model(architecture, NAMES, harmonic=harmonic)
    convolutions = [x for x in plain.layers if isinstance(x, keras.layers.Conv2D)]
    first, *others = convolutions
    size = first.kernel_size[0]
    names = [layer.name for layer in model.layers]
    assert first.name not in names
    assert model.get_layer(f"{first.name}_filters").strides == first.strides[0]
    assert not model.get_layer(f"{first.name}_bn").trainable_weights
    assert model.get_layer(f"{first.name}_harmonic").kernel_size == (1, 1)
    for layer in others:
        if harmonic == "first" or layer.kernel_size == (1, 1):
            assert type(model.get_layer(layer.name)) is keras.layers.Conv2D
        else:
            # Another name: weights of a plain kernel are not taken for coefficients.
            assert layer.name not in names
            found = model.get_layer(f"{layer.name}_harmonic")
            assert isinstance(found, HarmonicConv2D)
            assert (found.strides, found.padding) == (layer.strides, layer.padding)
    # There are as many coefficients as there were weights.
    added = 2 * 3 * size**2
    assert model.count_params() == plain.count_params() + added
    assert len(model.trainable_weights) == len(plain.trainable_weights)


def test_every_backbone_has_them():
    for architecture in {entry.family: name for name, entry in ARCHITECTURES.items()}.values():
        with keras.StatelessScope(initialize_variables=False):
            model = build_model(architecture, NAMES, harmonic="all")
        kinds = [type(layer) for layer in model.layers]
        assert kinds.count(HarmonicFilters) == 1, architecture
        left = [x for x in model.layers if type(x) is keras.layers.Conv2D]
        assert {layer.kernel_size for layer in left} == {(1, 1)}, architecture


def test_initial_coefficients_and_their_decay():
    model = build_model("fast-cnn", NAMES, harmonic="all", weight_decay=0.5)
    decayed = 0.0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            kernel = ops.convert_to_numpy(layer.kernel).astype("float64")
            decayed += 0.5 * (kernel**2).sum()
        if isinstance(layer, keras.layers.Conv2D):
            std = math.sqrt(2 / (math.prod(layer.kernel_size) * layer.filters))
            assert kernel.std() == pytest.approx(std, rel=4 / math.sqrt(2 * kernel.size))
    np.testing.assert_allclose(float(sum(model.losses)), decayed, rtol=1e-5)


def as_after_a_step(model, images, rng):
    """The model with running averages and biases, which begin as zeros and ones."""
    for layer in model.layers:
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(0.1 * rng.normal(size=layer.bias.shape))
    model(images, training=True)
    model.compile("sgd", "mse")


@pytest.mark.parametrize(
    ("architecture", "harmonic", "branch"),
    [("fast-cnn", "all", True), ("simple", "all", False), ("resnet-18", "all", False)],
)
def test_folded_is_the_same(architecture, harmonic, branch, tmp_path, monkeypatch):
    make_shallow(monkeypatch)
    keras.utils.set_random_seed(0)
    head = EmbeddingHead(np.eye(3, 16), classifier_branch=True) if branch else None
    model = build_model(architecture, NAMES, harmonic=harmonic, head=head, info={"loss": "x"})
    images = images_of(37, 32)
    as_after_a_step(model, images, np.random.default_rng(0))
    save_model(model, tmp_path / "m.keras")
    model = load_model(tmp_path / "m.keras")
    save_model(fold(model), tmp_path / "folded.keras")
    folded = load_model(tmp_path / "folded.keras")

    with keras.StatelessScope(initialize_variables=False):
        plain = build_model(architecture, NAMES, head=head)
    assert [layer.name for layer in folded.layers] == [layer.name for layer in plain.layers]
    assert [type(layer) for layer in folded.layers] == [type(layer) for layer in plain.layers]
    for facts in ("class_names", "class_ids", "info", "name"):
        assert getattr(folded, facts) == getattr(model, facts)

    outputs, again = (m.named_outputs(m.predict(images, verbose=0)) for m in (model, folded))
    assert outputs.keys() == again.keys()
    for name, expected in outputs.items():
        assert np.ptp(expected, axis=0).min() > 1e-4  # images are told apart
        np.testing.assert_allclose(again[name], expected, atol=1e-5)


def test_nothing_to_fold():
    with pytest.raises(ValueError, match="fast-cnn has no harmonic convolutions"):
        fold(build_model("fast-cnn", NAMES))


@pytest.mark.parametrize("size", [1, 12, (3, 5), (3, 3, 3)])
def test_sizes_that_are_refused(size):
    with pytest.raises(ValueError, match=r"two equal sides from 2 to 11|kernel_size"):
        HarmonicFilters(size)
    with pytest.raises(ValueError, match=r"two equal sides from 2 to 11|kernel_size"):
        HarmonicConv2D(4, size)


def test_more_maps_than_any_network_has_are_refused():
    with pytest.raises(ValueError, match="10000 maps"):
        HarmonicFilters(10)(keras.Input((32, 32, 100)))


def test_no_scale_and_shift():
    """Without gamma and beta the normalisation is what it is with 1 and 0."""
    rng = np.random.default_rng(0)
    for shape in [(6, 4, 3, 2), (6, 2)]:
        values = rng.normal(3, 2, size=shape).astype("float32")
        plain, affine = BatchNormalization(affine=False), BatchNormalization()
        for training in (True, False):
            np.testing.assert_allclose(
                plain(values, training=training), affine(values, training=training), rtol=1e-6
            )
        assert len(plain.weights) == 2
        assert not BatchNormalization.from_config(plain.get_config()).affine
