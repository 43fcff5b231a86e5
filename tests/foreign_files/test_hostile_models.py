"""`.keras` files that were made to do harm: refused before anything is made of them."""

import json
from argparse import Namespace

import keras
import numpy as np
import pytest

import models
from training import finetuning
from utils import UserError

from ..mutating import assert_one_line, limited
from ..training.small_run import small_model
from .changed_models import (
    declare,
    forget_sizes,
    layer_of,
    rewrite_config,
    rewrite_model,
    save_changed,
)

pytestmark = pytest.mark.usefixtures("forked_reading")


@pytest.fixture(scope="module")
def model():
    return small_model(Namespace(embedding="onehot", cls_weight=0.0))


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


def test_what_a_foreign_configuration_declares_is_nothing_to_finetuning(pooled_model, tmp_path):
    path = tmp_path / "own.keras"
    models.save_model(pooled_model, tmp_path / "m.keras")
    rewrite_config(tmp_path / "m.keras", path, declare("embedding", units=10**12))
    assert finetuning.load_weights(pooled_model, str(path)).loaded == 4
