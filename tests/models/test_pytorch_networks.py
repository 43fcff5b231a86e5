"""The networks that follow PyTorch's, against published numbers and the graphs of their sources."""

import math

import keras
import numpy as np
import pytest

from architectures import ARCHITECTURES
from models import (
    BatchNormalization,
    CosineHead,
    EmbeddingHead,
    build_model,
    load_model,
    save_model,
)

PUBLISHED = {
    # Classes, trainable parameters, running averages, layers with weights.
    "wrn-16-8": (10, 10_961_370, 7_200, 30),
    "wrn-28-10": (10, 36_479_194, 17_952, 54),
    "resnet-18": (1000, 11_689_512, 9_600, 41),
    "resnet-34": (1000, 21_797_672, 17_024, 73),
    "resnet-50-v1.5": (1000, 25_557_032, 53_120, 107),
    "fast-cnn": (10, 1_185_866, 1_920, 15),  # of no publication
}
_models = {}


@pytest.fixture(params=PUBLISHED)
def network(request):
    """A network without values of its weights, which take long to draw."""
    name = request.param
    if name not in _models:
        with keras.StatelessScope(initialize_variables=False):
            _models[name] = build_model(name, [str(i) for i in range(PUBLISHED[name][0])])
    return _models[name]


@pytest.fixture(scope="module")
def fast():
    return build_model("fast-cnn", ["a", "b", "c"])


def parameters(weights):
    return sum(math.prod(weight.shape) for weight in weights)


def convolutions(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]


def shapes(model, names, size):
    outputs = [model.get_layer(name).output for name in names]
    found = keras.Model(model.input, outputs).compute_output_shape((1, *size, 3))
    return [tuple(shape)[1:] for shape in found]


def test_parameters_as_published(network):
    _, trainable, running, layers = PUBLISHED[network.name]
    assert parameters(network.trainable_weights) == trainable
    assert parameters(network.non_trainable_weights) == running
    assert sum(1 for layer in network.layers if layer.weights) == layers


def test_no_biases_and_pytorchs_batch_normalization(network):
    assert not any(layer.use_bias for layer in convolutions(network))
    norms = [layer for layer in network.layers if isinstance(layer, BatchNormalization)]
    assert {(layer.momentum, layer.epsilon) for layer in norms} == {(0.9, 1e-5)}


@pytest.mark.parametrize("network", ["wrn-16-8"], indirect=True)
def test_the_graph_of_wide_resnets(network):
    layer = network.get_layer
    for stage in (1, 2, 3):
        # Where the width changes, block and shortcut both see the activated input.
        before = layer(f"relu{stage}-1x").output
        first = f"pad_res{stage}-1x" if stage > 1 else "res1-1x"
        assert layer(first).input is before
        assert layer(f"shortcut{stage}-1").input is before
        shortcut = layer(f"shortcut{stage}-1").output
        added = layer(f"add{stage}-1")
        assert added.input[0] is layer(f"res{stage}-1y").output
        assert added.input[1] is shortcut
        # Elsewhere the shortcut is the input itself.
        assert layer(f"bn{stage}-2x").input is added.output
        assert layer(f"add{stage}-2").input[1] is added.output
        assert layer(f"res{stage}-1y").input is layer(f"relu{stage}-1y").output
    assert layer("avg_pool").input is layer("relu_last").output
    strided = {layer.name for layer in convolutions(network) if layer.strides == (2, 2)}
    assert strided == {"res2-1x", "shortcut2-1", "res3-1x", "shortcut3-1"}
    names = ["conv0", "add1-2", "add2-2", "add3-2", "avg_pool"]
    expected = [(32, 33, 16), (32, 33, 128), (16, 17, 256), (8, 9, 512), (512,)]
    assert shapes(network, names, (32, 33)) == expected


@pytest.mark.parametrize("network", ["resnet-18", "resnet-50-v1.5"], indirect=True)
def test_the_graph_of_torchvisions_resnets(network):
    strided = {layer.name for layer in convolutions(network) if layer.strides == (2, 2)}
    blocks = [f"conv{stage}-1{part}" for stage in (3, 4, 5) for part in ("b", "_shortcut")]
    assert strided == {"conv1", *blocks}
    assert network.get_layer("conv3-1b").kernel_size == (3, 3)
    # The first block of ResNet-18 has no convolution in its shortcut.
    four = 4 if network.name == "resnet-50-v1.5" else 1
    assert ("conv2-1_shortcut" in [layer.name for layer in network.layers]) == (four == 4)
    last = "add5-3" if four == 4 else "add5-2"
    expected = [(112, 56, 64), (56, 28, 64), (56, 28, 64 * four), (7, 4, 512 * four)]
    assert shapes(network, ["conv1", "pool1", "add2-2", last], (224, 112)) == expected


def test_the_graph_of_the_fast_network(fast):
    layer = fast.get_layer
    for stage in (1, 2, 3):
        assert layer(f"pool{stage}x").input is layer(f"conv{stage}x").output
        added = layer(f"add{stage}").input
        assert added[0] is layer(f"gelu{stage}x").output
        assert added[1] is layer(f"gelu{stage}y").output
    names = ["gelu0", "add1", "add2", "add3", "max_pool"]
    expected = [(33, 8, 64), (16, 4, 64), (8, 2, 128), (4, 1, 256), (256,)]
    assert shapes(fast, names, (33, 8)) == expected


def test_kernels_begin_as_in_pytorch(fast):
    for layer in convolutions(fast):
        kernel = keras.ops.convert_to_numpy(layer.kernel)
        std = math.sqrt(2 / (9 * kernel.shape[-1]))
        assert kernel.std() == pytest.approx(std, rel=4 / math.sqrt(2 * kernel.size)), layer.name
        assert np.abs(kernel).max() > 3 * std  # not truncated
    kernel = keras.ops.convert_to_numpy(fast.get_layer("prob").kernel)
    assert 0.95 / 16 < np.abs(kernel).max() <= 1 / 16


@pytest.mark.parametrize("head", ["cross entropy", "cosine", "combined"])
def test_a_dump_with_every_head(tmp_path, head):
    """Also the pooled maximum, GELU and padding are what a file may hold."""
    heads = {
        "cross entropy": None,
        "cosine": EmbeddingHead(np.eye(3)),
        "combined": EmbeddingHead(np.eye(3), classifier_branch=True),
    }
    model = build_model("fast-cnn", ["a", "b", "c"], head=heads[head])
    save_model(model, tmp_path / "m.keras")
    images = np.random.default_rng(0).integers(0, 256, (2, 9, 8, 3)).astype("uint8")
    expected, again = (m.classify(images)[1] for m in (model, load_model(tmp_path / "m.keras")))
    np.testing.assert_array_equal(again, expected)


@pytest.mark.parametrize("harmonic", ["none", "all"])
def test_all_that_is_learned_decays(tmp_path, harmonic):
    """As in PyTorch's `SGD(model.parameters(), weight_decay=0.5)`, also after loading a dump."""
    head = EmbeddingHead(np.eye(3), classifier_branch=True)
    model = build_model(
        "fast-cnn", ["a", "b", "c"], head=head, weight_decay=0.25, decay_all=True, harmonic=harmonic
    )
    rng = np.random.default_rng(0)
    expected = 0.0
    for weight in model.trainable_weights:
        value = rng.normal(size=weight.shape)
        weight.assign(value)
        expected += 0.25 * (value**2).sum()
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)
    save_model(model, tmp_path / "m.keras")
    assert float(sum(load_model(tmp_path / "m.keras").losses)) == pytest.approx(expected, rel=1e-5)


def test_the_scale_of_cosines_does_not_decay():
    model = build_model(
        "fast-cnn", ["a", "b"], head=CosineHead("normface"), weight_decay=0.25, decay_all=True
    )
    kept = [weight.name for weight in model.trainable_weights if weight.regularizer is None]
    assert kept == ["raw_scale"]


def test_every_network_can_have_every_head(network):
    """The backbone ends in a vector, on which a dense layer makes any embedding."""
    assert ARCHITECTURES[network.name].embedding_dim is None
    assert len(network.get_layer("prob").input.shape) == 2
