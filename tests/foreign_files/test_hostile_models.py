"""`.keras` files that were made to do harm: refused before anything is made of them."""

import json
import os
import resource
import sys
import zipfile
from argparse import Namespace
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import models
import predict
from models import model_files
from training import finetuning
from training.reporting import evaluation
from utils import UserError

from ..mutating import assert_one_line, limited
from ..training.small_run import small_model


@pytest.fixture(scope="module")
def model():
    return small_model(Namespace(embedding="onehot", cls_weight=0.0))


def rewrite_config(source: Path, target: Path, change) -> None:
    """Changes the layers in a model's configuration."""
    rewrite_model(source, target, lambda config: change(config["layers"]))


def rewrite_model(source: Path, target: Path, change) -> None:
    """Changes a model's configuration."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.infolist():
            data = old.read(member)
            if member.filename == "config.json":
                config = json.loads(data)
                change(config["config"])
                data = json.dumps(config).encode()
            new.writestr(member.filename, data)


@pytest.mark.parametrize(
    ("module", "name", "config"),
    [
        ("keras.layers", "Lambda", {"function": {"class_name": "__lambda__", "config": {}}}),
        ("keras.layers", "TFSMLayer", {"filepath": "x"}),
        ("keras.layers", "StringLookup", {"vocabulary": "/etc/passwd"}),
        ("builtins", "exec", {}),
        ("os", "system", "true"),
    ],
)
def test_models_of_other_parts_are_refused(model, tmp_path, module, name, config):
    models.save_model(model, tmp_path / "m.keras")

    def change(layers):
        layers[2] |= {"module": module, "class_name": name, "registered_name": None}
        layers[2]["config"] = config

    rewrite_config(tmp_path / "m.keras", tmp_path / "bad.keras", change)
    with pytest.raises(UserError, match=r"bad\.keras: .*refused: it asks for "):
        models.load_model(tmp_path / "bad.keras")


def save_changed(model, path: Path, change: dict) -> None:
    """Saves a model with other facts than its own."""
    original = path.with_name("original.keras")
    models.save_model(model, original)
    rewrite_model(original, path, lambda config: config.update(change))


def layer_of(layers, name):
    return next(layer for layer in layers if layer["config"]["name"] == name)


def forget_sizes(layers):
    """Removes what Keras compares sizes with before this program does."""
    for layer in layers:
        layer["build_config"] = None


def declare(name, **config):
    """Changes a layer's configuration."""

    def change(layers):
        forget_sizes(layers)
        layer_of(layers, name)["config"].update(config)

    return change


def insert(class_name, **config):
    """Puts a layer before the pooling."""

    def change(layers):
        forget_sizes(layers)
        pool = layer_of(layers, "avg_pool")
        layer = {
            "module": "models.layers" if class_name == "PadChannels" else "keras.layers",
            "registered_name": f"small_data>{class_name}" if class_name == "PadChannels" else None,
            "class_name": class_name,
            "name": "new",
            "config": {"name": "new", "dtype": "float32", **config},
            "inbound_nodes": pool["inbound_nodes"],
        }
        pool["inbound_nodes"] = json.loads(
            json.dumps(pool["inbound_nodes"]).replace('"conv"', '"new"')
        )
        layers.insert(layers.index(pool), layer)

    return change


def widen(layers):
    """Inserts layers that are large together only."""
    insert("UpSampling2D", size=[1300, 1300])(layers)
    text = json.dumps(layer_of(layers, "avg_pool"))
    for i in range(9):
        after = "new" if i == 0 else f"wide{i - 1}"
        layer = json.loads(text.replace('"avg_pool"', f'"wide{i}"').replace('"new"', f'"{after}"'))
        layer |= {"class_name": "ReLU", "config": {"name": f"wide{i}", "dtype": "float32"}}
        layers.insert(-3, layer)
    pool = layer_of(layers, "avg_pool")
    pool["inbound_nodes"] = json.loads(json.dumps(pool["inbound_nodes"]).replace("new", "wide8"))


def repeat(layers):
    layers.append(layer_of(layers, "embedding"))


def add_dead_layer(layers):
    text = json.dumps(layer_of(layers, "embedding")).replace(
        '"name": "embedding"', '"name": "dead"'
    )
    dead = json.loads(text)
    dead["config"]["units"] = 10**9
    layers.append(dead)


def nest(layers):
    layers[1] |= {"module": "models", "class_name": "ImageClassifier", "config": {}}
    layers[1]["registered_name"] = "small_data>ImageClassifier"


def multiply(layers):
    conv = json.dumps(layer_of(layers, "conv"))
    layers += [json.loads(conv.replace('"conv"', f'"conv{i}"')) for i in range(5000)]


@pytest.fixture(scope="module")
def pooled_model():
    """A model for images of any size."""
    images = keras.Input((None, None, 3), name="image")
    x = keras.layers.Conv2D(4, 3, name="conv")(images)
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = keras.layers.Dense(3, name="embedding")(x)
    x = models.EmbeddingOutput(5, name="head")(x)
    return models.ImageClassifier(images, x, class_names=list("abcde"), info={"image_size": 8})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (declare("conv", filters=10**8), "layer conv has 2800000000 weights"),
        (declare("conv", filters=10**30), "layer conv has "),
        (declare("conv", kernel_size=[10**6, 10**6]), "layer conv has "),
        (declare("embedding", units=10**9), "layer embedding has 5000000000 weights"),
        (declare("embedding", lora_rank=10**9), "layer embedding has "),
        (
            declare("embedding", dtype="int8_from_float32"),
            "the dtype of its layer embedding",
        ),
        (declare("head", num_classes=10**9), "layer head has 3000000000 weights, of which .* 15"),
        (
            declare("embedding", kernel_regularizer="orthogonal_regularizer"),
            "kernel_regularizer .* is orth",
        ),
        (declare("image", batch_shape=[None, 10**6, 10**6, 3]), "layer image gives 1000000 x "),
        (insert("UpSampling2D", size=[10**6, 10**6]), "layer new gives 6000000 x 6000000 x 4 "),
        (insert("ZeroPadding2D", padding=[10**6, 10**6]), "layer new gives 2000006 x 2000006 x 4 "),
        (insert("PadChannels", padding=10**9), "layer embedding has 3000000015 weights"),
        (
            insert("MaxPooling2D", pool_size=[10**9] * 2, strides=[1, 1], padding="same"),
            "layer new it takes 144[0-9]{18} operations",
        ),
        (declare("conv", dilation_rate=[10**9] * 2, padding="same"), "layer conv it takes "),
        (widen, "up to its layer wide7 it takes [0-9]+ operations and 21[0-9]{8} numbers"),
        (
            declare(
                "embedding",
                kernel_initializer=keras.saving.serialize_keras_object(
                    keras.initializers.Orthogonal()
                ),
            ),
            "it asks for keras.initializers.Orthogonal",
        ),
        (
            declare("embedding", bias_initializer="orthogonal"),
            "the bias_initializer of its layer embedding is ortho",
        ),
        (repeat, "layer embedding is out of order, or there twice"),
        (add_dead_layer, "it lists layers that are not in the network"),
        (nest, "it asks for models.ImageClassifier"),
        (lambda layers: layers.reverse(), "is out of order"),
        (multiply, "its network has 10009 layers and tensors"),
    ],
)
def test_models_larger_than_their_weights_are_refused_unmade(
    pooled_model, tmp_path, monkeypatch, change, reason
):
    models.save_model(pooled_model, tmp_path / "m.keras")
    rewrite_config(tmp_path / "m.keras", tmp_path / "bad.keras", change)
    made = []
    monkeypatch.setattr(
        keras.Variable, "_deferred_initialize", lambda variable: made.append(variable)
    )
    with pytest.raises(UserError, match=rf"bad\.keras: .*refused: .*{reason}"):
        models.load_model(tmp_path / "bad.keras")
    assert not made


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            declare("conv", activation="os.system"),
            "refused: the activation of its layer conv is os",
        ),
        (declare("embedding", units="x"), "layer embedding: .*x"),
    ],
)
def test_why_a_layer_cannot_be_made_is_named(pooled_model, tmp_path, change, reason):
    models.save_model(pooled_model, tmp_path / "m.keras")
    rewrite_config(tmp_path / "m.keras", tmp_path / "bad.keras", change)
    with pytest.raises(UserError, match=rf"can be read \({reason}") as error:
        models.load_model(tmp_path / "bad.keras")
    assert_one_line(error.value, "bad.keras")
    assert "deserialized" not in str(error.value)


NUMPY = {"class_name": "__numpy__", "config": {"value": [""], "dtype": "U500000000"}}


def in_a_call(layers):
    layer_of(layers, "avg_pool")["inbound_nodes"][0]["kwargs"]["mask"] = NUMPY


def registered_elsewhere(layers):
    layers[1] |= {"module": "os", "class_name": "system", "registered_name": "small_data>system"}


def registered_as_ours(layers):
    layer_of(layers, "conv")["registered_name"] = "small_data>PadChannels"


def of_another_module(layers):
    layer_of(layers, "head")["module"] = "shutil"


def replaced(name, key, module, class_name):
    """Puts a class in a place of a layer's configuration."""
    item = {"module": module, "class_name": class_name, "config": {}, "registered_name": None}
    return lambda layers: layer_of(layers, name)["config"].update({key: item})


@pytest.mark.parametrize(
    "change",
    [
        in_a_call,
        registered_elsewhere,
        registered_as_ours,
        of_another_module,
        lambda layers: layer_of(layers, "conv")["config"].update(name=NUMPY),
        lambda layers: layer_of(layers, "conv").update(build_config=NUMPY),
        lambda layers: insert("GaussianNoise", stddev=1)(layers),
        replaced("conv", "kernel_initializer", "keras.initializers", "Identity"),
        replaced("conv", "kernel_initializer", "keras.layers", "ReLU"),
        replaced("conv", "kernel_regularizer", "keras.regularizers", "OrthogonalRegularizer"),
        replaced("conv", "activity_regularizer", "keras.initializers", "Zeros"),
        replaced("conv", "kernel_constraint", "keras.constraints", "MaxNorm"),
        replaced("conv", "activation", "builtins", "function"),
        declare("conv", kernel_constraint="max_norm"),
        declare("conv", kernel_initializer="glorot_uniform"),
        declare("conv", activation="hard_sigmoid"),
    ],
)
def test_names_that_are_not_listed_are_refused_wherever_they_are(pooled_model, tmp_path, change):
    models.save_model(pooled_model, tmp_path / "m.keras")
    rewrite_config(tmp_path / "m.keras", tmp_path / "bad.keras", change)
    with pytest.raises(UserError, match=r"bad\.keras: .*refused: "), limited():
        models.load_model(tmp_path / "bad.keras")


@pytest.mark.parametrize("place", ["info", "class_names"])
def test_facts_may_not_be_made_into_arrays(pooled_model, tmp_path, place):
    save_changed(pooled_model, tmp_path / "bad.keras", {place: [NUMPY]})
    with pytest.raises(UserError, match=r"refused: it asks for None\.__numpy__"), limited():
        models.load_model(tmp_path / "bad.keras")


@pytest.mark.parametrize(
    ("write", "name"), [(models.save_model, "m.keras"), (models.save_weights, "w.weights.h5")]
)
def test_a_full_disk_is_an_error_that_names_the_file(pooled_model, tmp_path, write, name):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match=name) as error:
            write(pooled_model, tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.filename == str(tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_a_refused_model_leaves_nothing_behind(pooled_model, tmp_path):
    path = tmp_path / "m.keras"
    models.save_model(pooled_model, path)
    rewrite_config(path, tmp_path / "bad.keras", declare("embedding", units=10**12))
    with pytest.raises(UserError, match="refused"):
        models.load_model(tmp_path / "bad.keras")
    # Keras makes the variables that are still to be made with the next model's.
    loaded = models.load_model(path)
    for variable, expected in zip(loaded.variables, pooled_model.variables, strict=True):
        np.testing.assert_array_equal(variable, expected)


def test_images_of_the_size_that_a_model_names_must_fit(pooled_model, tmp_path):
    models.save_model(pooled_model, tmp_path / "m.keras")
    rewrite_model(
        tmp_path / "m.keras",
        tmp_path / "bad.keras",
        lambda config: config["info"].update(image_size=10**6),
    )
    with pytest.raises(UserError, match="layer image gives 1000000 x 1000000 x 3 numbers"):
        models.load_model(tmp_path / "bad.keras")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"class_names": ["a"] * 4}, "class embeddings of shape .5, 3. for 4 classes"),
        ({"class_names": [1] * 5}, "does not name its classes"),
        ({"class_names": []}, "does not name its classes"),
        ({"class_ids": [1, 2]}, "2 class ids for 5 classes"),
        ({"class_ids": [[]] * 5}, "5 class ids for 5 classes"),
    ],
)
def test_models_whose_classes_do_not_agree_are_refused(pooled_model, tmp_path, change, reason):
    save_changed(pooled_model, tmp_path / "bad.keras", change)
    with pytest.raises(UserError, match=rf"bad\.keras: .*{reason}"):
        models.load_model(tmp_path / "bad.keras")


FACTS = {
    "dataset": "digits", "image_size": 8, "test_resize": 8, "seed": 0, "test_fraction": None,
    "loss": "inv_corr", "cls_weight": 0.0, "label_smoothing": 0.0,
}  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"dataset": 5}, {"image_size": 2**14 + 1}, {"image_size": None}, {"test_resize": 4},
        {"test_resize": 10**9}, {"test_resize": 8.5}, {"seed": -1}, {"test_fraction": "x"},
        {"loss": ["inv_corr"]}, {"loss": "cross_entropy"}, {"cls_weight": 0.1}, {"cls_weight": {}},
        {"label_smoothing": float("nan")},
    ],
)  # fmt: skip
def test_facts_that_no_training_stores_are_refused(pooled_model, tmp_path, monkeypatch, wrong):
    path = tmp_path / "m.keras"
    monkeypatch.setattr(model_files, "_MAX_OUTPUT", 2**60)
    save_changed(pooled_model, path, {"info": FACTS})
    assert evaluation.load_model(path).info == FACTS
    save_changed(pooled_model, path, {"info": FACTS | wrong})
    with pytest.raises(UserError, match=rf"m\.keras: its {next(iter(wrong))} is "):
        evaluation.load_model(path)


def test_class_and_file_names_do_not_reach_the_terminal_as_they_are(
    pooled_model, tmp_path, monkeypatch, capsys
):
    save_changed(
        pooled_model,
        tmp_path / "m.keras",
        {"info": FACTS, "class_names": ["\x1b]0;title\x07"] * 5},
    )
    Image.new("RGB", (12, 16)).save(tmp_path / "\x1b[2J\t.png")
    argv = ["predict.py", "--model", str(tmp_path / "m.keras"), "--top_k", "1", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(model_files, "_MAX_OUTPUT", 2**60)
    predict.main()
    path, prediction = capsys.readouterr().out.removesuffix("\n").split("\t")
    assert path == str(tmp_path / "?[2J?.png")
    assert prediction.startswith("?]0;title?: ")


def test_a_model_without_facts_is_refused(pooled_model, tmp_path):
    save_changed(pooled_model, tmp_path / "m.keras", {"info": None})
    with pytest.raises(UserError, match="its dataset is 'None'"):
        evaluation.load_model(tmp_path / "m.keras")


def test_what_a_foreign_configuration_declares_is_nothing_to_finetuning(pooled_model, tmp_path):
    path = tmp_path / "own.keras"
    models.save_model(pooled_model, tmp_path / "m.keras")
    rewrite_config(tmp_path / "m.keras", path, declare("embedding", units=10**12))
    assert finetuning.load_weights(pooled_model, str(path)).loaded == 4
