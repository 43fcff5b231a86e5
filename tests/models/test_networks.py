"""The networks against what was measured on the original (parameters, names, shapes)."""

import math
import re

import keras
import numpy as np
import pytest

from architectures import ARCHITECTURES
from models import BatchNormalization, EmbeddingHead, build_model

from .test_pytorch_networks import PUBLISHED as PYTORCHS

PUBLISHED = {
    # Classes, trainable and non-trainable parameters, layers with weights.
    "resnet-50": (200, 23_944_392, 53_120, 107),
    "resnet-110-wfc": (100, 6_913_188, 16_192, 219),
    "resnet-110": (100, 1_737_860, 8_096, 219),
    "resnet-110-fc": (100, 1_737_860, 8_096, 219),
    "resnet-32": (100, 471_140, 2_272, 63),
    "resnet-32-fc": (100, 471_140, 2_272, 63),
    "simple": (100, 3_381_796, 4_608, 21),
}


@pytest.fixture(scope="module", params=PUBLISHED)
def classifier(request):
    """A network without values of its weights, which take long to draw."""
    with keras.StatelessScope(initialize_variables=False):
        return build_model(request.param, names(PUBLISHED[request.param][0]))


@pytest.fixture(scope="module", params=["resnet-50", "resnet-32", "simple"])
def begun(request):
    """A network of each family as a training begins with it."""
    return build_model(request.param, names(PUBLISHED[request.param][0]))


def names(count):
    return [str(i) for i in range(count)]


def parameters(weights):
    return sum(math.prod(weight.shape) for weight in weights)


def kernels(model):
    return [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)
    ]


def convolution_names(model):
    return [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]


def bn_names(model):
    return [layer.name for layer in model.layers if isinstance(layer, BatchNormalization)]


def output_shapes(model, layer_names, size):
    outputs = [model.get_layer(name).output for name in layer_names]
    return [
        tuple(shape)
        for shape in keras.Model(model.input, outputs).compute_output_shape((1, *size, 3))
    ]


def test_every_architecture_is_tested():
    assert PUBLISHED.keys() | PYTORCHS.keys() == set(ARCHITECTURES)


def test_parameters_as_published(classifier):
    _, trainable, non_trainable, layers = PUBLISHED[classifier.name]
    assert parameters(classifier.trainable_weights) == trainable
    assert parameters(classifier.non_trainable_weights) == non_trainable
    assert classifier.count_params() == trainable + non_trainable
    assert sum(1 for layer in classifier.layers if layer.weights) == layers


def test_embedding_has_its_own_dense_layer():
    model = build_model("resnet-32-fc", names(10), head=EmbeddingHead(np.eye(10)))
    assert parameters(model.trainable_weights) == 471_140 - 65 * 100 + 65 * 10
    assert model.get_layer("embedding").units == 10
    plain = build_model("resnet-32", names(10), head=EmbeddingHead(np.eye(10, 64)))
    assert parameters(plain.trainable_weights) == 471_140 - 65 * 100


def test_batch_normalization_and_biases(classifier):
    bns = [layer for layer in classifier.layers if isinstance(layer, BatchNormalization)]
    assert {(layer.momentum, layer.epsilon) for layer in bns} == {(0.99, 1e-3)}
    for layer in kernels(classifier):
        assert layer.use_bias
        assert isinstance(layer.bias_initializer, keras.initializers.Zeros)


def test_regularizers(classifier):
    own = {"resnet-50": 0.0, "simple": 5e-4}.get(classifier.name, 2e-4)
    for layer in kernels(classifier):
        expected = own
        if classifier.name == "simple" and layer.name == "prob":
            expected = 0.0
        regularizer = layer.kernel_regularizer
        assert (0.0 if regularizer is None else float(regularizer.l2)) == expected, layer.name
        assert layer.bias_regularizer is None


@pytest.mark.parametrize("architecture", ["simple", "resnet-32", "resnet-32-fc"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_weight_decay_replaces_every_regularizer(architecture, weight_decay):
    model = build_model(
        architecture,
        names(4),
        head=EmbeddingHead(np.eye(4, 64), classifier_branch=True),
        weight_decay=weight_decay,
    )
    assert model.get_layer("prob") in kernels(model)
    expected = weight_decay * sum(
        (keras.ops.convert_to_numpy(layer.kernel).astype("float64") ** 2).sum()
        for layer in kernels(model)
    )
    np.testing.assert_allclose(float(sum(model.losses)), expected, rtol=1e-5)


def test_branch_has_its_own_weight_decay():
    model = build_model(
        "resnet-32-fc", names(4), head=EmbeddingHead(np.eye(4), classifier_branch=True)
    )
    assert float(model.get_layer("prob").kernel_regularizer.l2) == pytest.approx(5e-4)
    assert float(model.get_layer("embedding").kernel_regularizer.l2) == pytest.approx(2e-4)


def test_initialisers(classifier):
    for layer in kernels(classifier):
        he = classifier.name == "resnet-50" and layer.name != "prob"
        expected = keras.initializers.HeNormal if he else keras.initializers.GlorotUniform
        assert type(layer.kernel_initializer) is expected, layer.name


def test_initial_weights(begun):
    for layer in kernels(begun):
        assert not keras.ops.convert_to_numpy(layer.bias).any()
        kernel = keras.ops.convert_to_numpy(layer.kernel)
        he = isinstance(layer.kernel_initializer, keras.initializers.HeNormal)
        fan_in = math.prod(kernel.shape[:-1])
        fan_out = math.prod(kernel.shape[:-2]) * kernel.shape[-1]
        std = math.sqrt(2 / fan_in if he else 2 / (fan_in + fan_out))
        # A sample's std of n values is off by about 1/√(2n).
        assert kernel.std() == pytest.approx(std, rel=4 / math.sqrt(2 * kernel.size)), layer.name
        # The truncation of the normal at 2 of its own σ, or the ends of the uniform distribution.
        bound = 2 / 0.8796 * std if he else math.sqrt(3) * std
        assert 0.9 * bound < np.abs(kernel).max() <= 1.0001 * bound, layer.name


def test_kernels_follow_the_seed():
    keras.utils.set_random_seed(3)
    first = build_model("resnet-32", names(2)).get_weights()
    keras.utils.set_random_seed(3)
    second = build_model("resnet-32", names(2)).get_weights()
    third = build_model("resnet-32", names(2)).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], third[0])


@pytest.mark.parametrize("classifier", ["resnet-50"], indirect=True)
def test_resnet_50_names_and_shapes(classifier):
    expected = ["conv1"]
    for stage, blocks in ((2, "abc"), (3, "abcd"), (4, "abcdef"), (5, "abc")):
        for block in blocks:
            branches = ["branch2a", "branch2b", "branch2c"]
            if block == "a":
                branches.append("branch1")
            expected += [f"res{stage}{block}_{branch}" for branch in branches]
    assert sorted(convolution_names(classifier)) == sorted(expected)
    assert sorted(bn_names(classifier)) == sorted(
        "bn_conv1" if name == "conv1" else name.replace("res", "bn") for name in expected
    )

    strided = {layer.name for layer in kernels(classifier)[:-1] if layer.strides == (2, 2)}
    assert strided == {
        "conv1",
        *(f"res{stage}a_{branch}" for stage in (3, 4, 5) for branch in ("branch1", "branch2a")),
    }
    assert classifier.get_layer("conv1").padding == "valid"
    assert classifier.get_layer("pool1").padding == "valid"
    layers = ["conv1_pad", "conv1", "pool1_pad", "pool1", "add2c", "add3d", "add4f", "add5c"]
    assert output_shapes(classifier, [*layers, "avg_pool", "prob"], (224, 448)) == [
        (1, 230, 454, 3),
        (1, 112, 224, 64),
        (1, 114, 226, 64),
        (1, 56, 112, 64),
        (1, 56, 112, 256),
        (1, 28, 56, 512),
        (1, 14, 28, 1024),
        (1, 7, 14, 2048),
        (1, 2048),
        (1, 200),
    ]


@pytest.mark.parametrize(
    "classifier", ["resnet-32-fc", "resnet-110", "resnet-110-wfc"], indirect=True
)
def test_cifar_resnet_names_and_shapes(classifier):
    blocks = 5 if classifier.name == "resnet-32-fc" else 18
    suffixes = [
        f"{stage}-{block}{xy}"
        for stage in (1, 2, 3)
        for block in range(1, blocks + 1)
        for xy in "xy"
    ]
    assert convolution_names(classifier) == ["conv0"] + [f"res{suffix}" for suffix in suffixes]
    assert bn_names(classifier) == ["bn0"] + [f"bn{suffix}" for suffix in suffixes]
    others = [layer.name for layer in classifier.layers if re.match("avg|pad", layer.name)]
    assert sorted(others) == ["avg2-1", "avg3-1", "avg_pool", "pad2-1", "pad3-1"]
    strided = {layer.name for layer in kernels(classifier)[:-1] if layer.strides == (2, 2)}
    assert strided == {"res2-1x", "res3-1x"}

    a, b, c = (32, 64, 128) if classifier.name.endswith("wfc") else (16, 32, 64)
    layers = ["relu0", f"add1-{blocks}", "avg2-1", "pad2-1", f"add2-{blocks}", "add3-1"]
    assert output_shapes(classifier, [*layers, "avg_pool", "prob"], (32, 40)) == [
        (1, 32, 40, a),
        (1, 32, 40, a),
        (1, 16, 20, a),
        (1, 16, 20, b),
        (1, 16, 20, b),
        (1, 8, 10, c),
        (1, c),
        (1, 100),
    ]


@pytest.mark.parametrize("classifier", ["simple"], indirect=True)
def test_simple_shapes(classifier):
    layers = ["bn2", "avg3", "bn6", "avg7", "bn10", "avg11", "bn12", "avg_pool", "bn14", "prob"]
    assert output_shapes(classifier, layers, (33, 8)) == [
        (1, 33, 8, 64),
        (1, 16, 4, 64),
        (1, 16, 4, 128),
        (1, 8, 2, 128),
        (1, 8, 2, 256),
        (1, 4, 1, 256),
        (1, 4, 1, 512),
        (1, 512),
        (1, 512),
        (1, 100),
    ]
    # The activation precedes batch normalisation.
    assert classifier.get_layer("conv1").activation is keras.activations.relu
    assert classifier.get_layer("bn1").input is classifier.get_layer("conv1").output
    # Files of Keras 2 are read by these names.
    kernels = [layer.name for layer in classifier.layers if hasattr(layer, "kernel")]
    names = "conv1 conv2 conv4 conv5 conv6 conv8 conv9 conv10 conv12 fc14 prob"
    assert kernels == names.split()


def test_shortcuts_of_the_cifar_resnet():
    """With its residual branches silenced, the network only pools and pads what `relu0` gives."""
    model = build_model("resnet-32", names(2), head=EmbeddingHead(np.eye(2, 64)))
    for layer in model.layers:
        if re.fullmatch(r"bn\d-\d+y", layer.name):
            layer.gamma.assign(np.zeros(layer.gamma.shape))
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3)).astype("uint8")
    outputs = [model.get_layer("relu0").output, model.get_layer("avg_pool").output]
    relu0, features = keras.Model(model.input, outputs).predict(images, verbose=0)
    assert (relu0 > 0).any()
    np.testing.assert_allclose(features[:, 24:40], relu0.mean((1, 2)), rtol=1e-4, atol=1e-4)
    assert not features[:, :24].any()
    assert not features[:, 40:].any()


def test_shortcuts_of_resnet_50():
    """An identity block adds its input: silencing its branch leaves the input as it is."""
    model = build_model("resnet-50", names(2))
    model.get_layer("bn2b_branch2c").gamma.assign(np.zeros(256))
    outputs = [model.get_layer(name).output for name in ("relu2a", "relu2b", "relu2c")]
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 40, 3)).astype("uint8")
    a, b, c = keras.Model(model.input, outputs).predict(images, verbose=0)
    assert a.any()
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(b, c)
