import re
import signal
import sys
from argparse import Namespace

import h5py
import numpy as np
import pytest

import learn_classifier
import models
from training import finetuning
from training.learning import callbacks, losses
from training.resuming import snapshots
from training.resuming.signals import Interrupted
from utils import UserError

from .small_run import At, Killed, small_model

ONE_LAYER = ["conv/kernel:0", "conv/bias:0"]


@pytest.fixture(scope="module")
def model():
    return small_model(Namespace(embedding=None, cls_weight=0.0))


def write_keras_2(path, layers, group=None):
    """A weight file as Keras 2 wrote it.

    Args:
        path: The file.
        layers: Name of a layer -> names of its weights -> arrays.
        group: Where `model.save` put the weights; nothing for `model.save_weights`.
    """
    with h5py.File(path, "w") as file:
        root = file.create_group(group) if group else file
        root.attrs["layer_names"] = [name.encode() for name in layers]
        root.attrs["backend"] = b"tensorflow"
        root.attrs["keras_version"] = b"2.2.4"
        for name, weights in layers.items():
            subgroup = root.create_group(name)
            subgroup.attrs["weight_names"] = [weight.encode() for weight in weights]
            for weight, array in weights.items():
                subgroup.create_dataset(weight, data=array)


def random_layers(classes=10):
    draw = np.random.default_rng(0)
    shapes = {
        "input_1": {},
        "conv": {"conv/kernel:0": (3, 3, 3, 4), "conv/bias:0": (4,)},
        "bn": {
            f"bn/{name}:0": (4,) for name in ("gamma", "beta", "moving_mean", "moving_variance")
        },
        "prob": {"prob/kernel:0": (144, classes), "prob/bias:0": (classes,)},
        "other": {"other/kernel:0": (2, 2)},
    }
    return {
        layer: {
            name: draw.uniform(0.1, 0.5, shape).astype("float32") for name, shape in weights.items()
        }
        for layer, weights in shapes.items()
    }


def values(model, layer):
    return [weight.numpy() for weight in model.get_layer(layer).weights]


@pytest.mark.parametrize("group", [None, "model_weights"])
def test_keras_2_files_are_read(model, tmp_path, group):
    layers = random_layers()
    write_keras_2(tmp_path / "w.h5", layers, group)
    matches = finetuning.load_weights(model, str(tmp_path / "w.h5"))
    assert matches == finetuning.Matches(loaded=8, unused=["other"])
    assert matches.describe("w.h5").splitlines() == [
        "fine-tuning w.h5: 8 tensors loaded, 0 skipped as their shapes differ, 0 missing; "
        "new layers: none",
        "it does not name its classes; its head is taken over, as its shape fits",
        "not used of it: other",
    ]
    for layer in "conv", "bn", "prob":
        for found, expected in zip(values(model, layer), layers[layer].values(), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_other_shapes_are_skipped_and_absent_layers_missing(model, tmp_path):
    layers = random_layers(classes=7)
    del layers["bn"]
    write_keras_2(tmp_path / "w.h5", layers)
    before = values(model, "prob")
    matches = finetuning.load_weights(model, str(tmp_path / "w.h5"))
    assert matches == finetuning.Matches(
        loaded=2, skipped=2, missing=4, new_layers=["bn", "prob"], unused=["other"]
    )
    np.testing.assert_equal(values(model, "prob"), before)


def test_a_file_without_a_match_is_refused(model, tmp_path):
    write_keras_2(tmp_path / "w.h5", {"block1_conv1": {"kernel:0": np.zeros((2, 2))}})
    with pytest.raises(UserError, match=r"w\.h5: nothing in it fits .* layers are block1_conv1"):
        finetuning.load_weights(model, str(tmp_path / "w.h5"))


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_our_own_files_are_read(tmp_path, suffix):
    """By name, also where the other network has other layers and another classifier."""
    source = small_model(Namespace(embedding=None, cls_weight=0.0))
    source.get_layer("bn").step.assign(5)
    path = str(tmp_path / f"m{suffix}")
    (models.save_model if suffix == ".keras" else models.save_weights)(source, path)
    target = small_model(Namespace(embedding="onehot", cls_weight=0.1))
    embeddings = target.class_embeddings
    matches = finetuning.load_weights(target, path)
    assert matches.new_layers == ["embedding", "prob"]
    assert (matches.loaded, matches.missing) == (6, 2)
    assert matches.skipped + matches.other_head == 2
    np.testing.assert_equal(values(target, "conv"), values(source, "conv"))
    assert target.get_layer("bn").step.numpy() == 5
    np.testing.assert_equal(target.class_embeddings, embeddings)


def renamed(embedding, names, order=None):
    """The same network for classes of other names, or with other class embeddings."""
    model = small_model(Namespace(embedding=embedding, cls_weight=0.1 if embedding else 0.0))
    model.class_names = tuple(names)
    if order:
        model.embedding_head.class_embeddings.assign(np.eye(10)[order])
    return model


@pytest.mark.parametrize("embedding", [None, "onehot"])
def test_a_head_for_other_classes_is_not_taken_over(tmp_path, embedding):
    """As many classes of other names, the same ones in another order, or other embeddings."""
    digits = [str(i) for i in range(10)]
    source = renamed(embedding, digits)
    models.save_model(source, tmp_path / "m.keras")
    head = ["embedding", "prob"] if embedding else ["prob"]

    same = renamed(embedding, digits)
    matches = finetuning.load_weights(same, str(tmp_path / "m.keras"))
    assert (matches.other_head, matches.new_layers) == (0, [])
    assert len(matches.describe("m.keras").splitlines()) == 1
    np.testing.assert_equal(values(same, "prob"), values(source, "prob"))

    others = [renamed(embedding, list("abcdefghij")), renamed(embedding, digits[::-1])]
    if embedding:
        others.append(renamed(embedding, digits, order=[*range(1, 10), 0]))
    for other in others:
        before = values(other, "prob")
        matches = finetuning.load_weights(other, str(tmp_path / "m.keras"))
        assert (matches.other_head, matches.new_layers) == (2 * len(head), head)
        assert "other classes or class embeddings, so the head is new" in matches.describe("m")
        np.testing.assert_equal(values(other, "prob"), before)
        np.testing.assert_equal(values(other, "conv"), values(source, "conv"))


def test_files_of_the_original_and_older_ones_of_simple_are_read(tmp_path):
    network = models.build_model("simple", ["a", "b"])
    own = [layer for layer in network.layers if layer.weights]
    draw = np.random.default_rng(0)
    numbers = [1, 2, 4, 5, 6, 8, 9, 10, 12, 14]
    for old in (False, True):
        layers = {}
        for layer in own:
            kind, number = re.fullmatch(r"([a-z]+)(\d*)", layer.name).groups()
            name = f"{kind}{numbers.index(int(number)) + 1}" if old and number else layer.name
            layers[name] = {
                f"{name}/{i}:0": draw.uniform(0.1, 0.5, weight.shape).astype("float32")
                for i, weight in enumerate(layer.weights)
            }
        write_keras_2(tmp_path / "w.h5", layers)
        matches = finetuning.load_weights(network, str(tmp_path / "w.h5"))
        assert (matches.new_layers, matches.unused) == ([], [])
        for layer, arrays in zip(own, layers.values(), strict=True):
            np.testing.assert_equal(values(network, layer.name), list(arrays.values()))


def test_the_layer_names_of_resnet_50_are_those_of_keras_2(tmp_path):
    """`resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5`, written from its published layout."""
    channels = {"conv1": (7, 3, 64)}
    inputs = 64
    for stage, (filters, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=2):
        for block in "abcdef"[:blocks]:
            name = f"res{stage}{block}_branch"
            channels[f"{name}2a"] = (1, inputs, filters)
            channels[f"{name}2b"] = (3, filters, filters)
            channels[f"{name}2c"] = (1, filters, 4 * filters)
            if block == "a":
                channels[f"{name}1"] = (1, inputs, 4 * filters)
            inputs = 4 * filters
    with h5py.File(tmp_path / "w.h5", "w") as file:
        names = []

        def add(layer, shapes):
            names.append(layer.encode())
            group = file.create_group(layer)
            weights = [f"{layer}_1/{weight}:0" for weight in shapes]
            group.attrs["weight_names"] = [weight.encode() for weight in weights]
            for weight, shape in zip(weights, shapes.values(), strict=True):
                # Zeros, of which most take no space; a file must hold a twentieth of its numbers.
                held = {"data": np.zeros(shape, "float32")} if layer.startswith("res5a") else {}
                group.create_dataset(weight, shape, "float32", **held)

        for name, (size, before, after) in channels.items():
            add(name, {"kernel": (size, size, before, after), "bias": (after,)})
            normalisation = "bn_conv1" if name == "conv1" else name.replace("res", "bn")
            weights = ("gamma", "beta", "moving_mean", "moving_variance")
            add(normalisation, dict.fromkeys(weights, (after,)))
        file.attrs["layer_names"] = names
    network = models.build_model("resnet-50", ["a", "b"])
    matches = finetuning.load_weights(network, str(tmp_path / "w.h5"))
    assert matches == finetuning.Matches(loaded=53 * 6, missing=2, new_layers=["prob"])


def hostile_link(kind):
    def make(file):
        del file["conv"]["conv/kernel:0"]
        file["conv"]["conv/kernel:0"] = kind

    return make


def external_storage(file):
    del file["conv"]["conv/kernel:0"]
    file["conv"].create_dataset(
        "conv/kernel:0", (3, 3, 3, 4), "float32", external=[("/etc/passwd", 0, 432)]
    )


def virtual(file):
    del file["conv"]["conv/kernel:0"]
    layout = h5py.VirtualLayout((3, 3, 3, 4), "float32")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3, 3, 3, 4))
    file["conv"].create_virtual_dataset("conv/kernel:0", layout)


def group_link(file):
    del file["conv"]
    file["conv"] = h5py.ExternalLink("other.h5", "/conv")


@pytest.mark.parametrize(
    "change",
    [
        hostile_link(h5py.SoftLink("/prob/prob/kernel:0")),
        hostile_link(h5py.ExternalLink("other.h5", "/x")),
        group_link,
        external_storage,
        virtual,
    ],
)
def test_links_out_of_the_file_are_refused(model, tmp_path, change):
    path = tmp_path / "w.h5"
    write_keras_2(path, random_layers())
    with h5py.File(path, "a") as file:
        change(file)
    before = values(model, "conv")
    with pytest.raises(UserError, match=r"link to another place|not an array within the file"):
        finetuning.load_weights(model, str(path))
    np.testing.assert_equal(values(model, "conv"), before)


def test_a_declared_size_is_not_allocated(model, tmp_path):
    path = tmp_path / "w.h5"
    write_keras_2(path, random_layers())
    with h5py.File(path, "a") as file:
        del file["conv"]["conv/kernel:0"]
        # 4 TB, of which nothing is stored.
        file["conv"].create_dataset("conv/kernel:0", (10**6, 10**6), "float32", chunks=(100, 100))
    with pytest.raises(UserError, match="takes far more memory than it holds"):
        finetuning.load_weights(model, str(path))


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Runs `learn_classifier.py` in this process, with the small network."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    write_keras_2(tmp_path / "w.h5", random_layers(classes=7))
    seen = {}

    def build(args, dataset):
        seen["model"] = small_model(args)
        losses.compile_model(args, seen["model"])
        return seen["model"]

    monkeypatch.setattr(learn_classifier, "build_classifier", build)

    def run(flags="", interruption=None):
        command = f"learn_classifier.py --dataset digits-sub3 --epochs 2 --no_progress {flags}"
        command += f" --finetune {tmp_path}/w.h5 --finetune_init 2 --sgd_lr 0.05"
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", command.split())
            if interruption:
                patch.setattr(callbacks, "StopOnDivergence", lambda: interruption)
            try:
                learn_classifier.main()
            except (Killed, Interrupted):
                return seen["model"], "interrupted"
        return seen["model"], "finished"

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_new_layers_are_trained_first_and_a_resumed_run_is_the_same(program, tmp_path, capfd):
    whole, _ = program()
    printed = capfd.readouterr().out
    assert (
        f"fine-tuning {tmp_path}/w.h5: 6 tensors loaded, 2 skipped as their shapes differ, "
        "0 missing; new layers: prob\n"
    ) in printed
    starts = [line.split(" - ")[0] for line in printed.splitlines() if "/2 - " in line]
    assert starts == ["New layers 1/2", "New layers 2/2", "Epoch 1/2", "Epoch 2/2"]

    resumable = f"--snapshot {tmp_path}/s"
    stopped, end = program(resumable, At(1, 3))
    assert end == "interrupted"
    # Only the new layer has changed by now.
    for layer in "conv", "bn":
        expected = random_layers()[layer].values()
        np.testing.assert_equal(values(stopped, layer), list(expected))
    assert snapshots.load(tmp_path / "s").snapshot.place == "epoch 1 of the new layers alone"
    for interruption, place in (
        (At(1, 5, signal=signal.SIGTERM), "epoch 2, step 5 of the new layers alone"),
        (At(0, 3, signal=signal.SIGTERM), "epoch 1, step 3"),
    ):
        assert program(resumable, interruption)[1] == "interrupted"
        assert snapshots.load(tmp_path / "s").snapshot.place == place
    resumed, end = program(resumable)
    assert end == "finished"
    for variable, expected in zip(resumed.variables, whole.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), expected.numpy())
