import json
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

import models
from models import EmbeddingHead, Preprocessing, build_model, save_model
from utils import UsageError

from ..programs import ROOT, run
from ..shallow import make_shallow

NAMES = ["cat", "dog", "Löwe"]
PHI = np.array([[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5], [0.0, -1.0, 0.0, 0.0]], "float32")


def images_of(height=8, width=8, count=5):
    rng = np.random.default_rng(height * width)
    return rng.integers(0, 256, (count, height, width, 3)).astype("uint8")


@pytest.fixture(scope="module")
def combined():
    return build_model(
        "fast-cnn",
        NAMES,
        class_ids=["n1", "n2", "n3"],
        head=EmbeddingHead(PHI, classifier_branch=True),
        preprocessing=Preprocessing(mean=[120.0, 110.0, 100.0], std=[60.0, 50.0, 40.0]),
        info={"loss": "inv_corr", "cls_weight": 0.1},
    )


@pytest.fixture
def mixed_bfloat16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def test_classifier_output():
    model = build_model("fast-cnn", NAMES)
    outputs = keras.ops.convert_to_numpy(model(images_of()))
    assert outputs.shape == (5, 3)
    np.testing.assert_allclose(outputs.sum(1), 1.0, rtol=1e-5)
    assert model.output_names == ["prob"]
    assert model.class_embeddings is None
    assert model.embedding_head is None
    assert model.class_names == tuple(NAMES)
    assert model.class_ids == (0, 1, 2)
    np.testing.assert_array_equal(model.class_scores(outputs), outputs)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_classify(combined, dtype):
    images = images_of(12, 8)
    classes, scores = combined.classify(images.astype(dtype), batch_size=2)
    assert classes.shape == (5,)
    assert scores.shape == (5, 3)
    np.testing.assert_array_equal(classes, scores.argmax(1))
    prob = keras.ops.convert_to_numpy(combined(images)["prob"])
    np.testing.assert_allclose(scores, prob, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_class_scores_of_embeddings(metric):
    # Features of 2 φ[0] are nearest to φ[0] by distance, but may have another largest product.
    model = build_model(
        "fast-cnn", NAMES, head=EmbeddingHead(PHI * 10, output="linear", metric=metric)
    )
    outputs = np.random.default_rng(0).normal(0, 10, (50, 4)).astype("float32")
    expected = outputs @ PHI.T * 10
    if metric == "euclidean":
        expected = -((outputs[:, None].astype("float64") - PHI * 10) ** 2).sum(-1)
    scores = keras.ops.convert_to_numpy(model.class_scores(outputs))
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(model.class_embeddings, PHI * 10)


def test_preprocessing_is_in_the_model(combined):
    images = images_of()
    standardized = keras.Model(combined.input, combined.get_layer("standardize").output)
    np.testing.assert_allclose(
        standardized.predict(images, verbose=0),
        (images - np.array([120.0, 110.0, 100.0])) / [60.0, 50.0, 40.0],
        rtol=1e-5,
        atol=1e-5,
    )


def test_branch_sits_on_the_normalised_embedding(combined):
    assert combined.get_layer("relu_prob").input is combined.get_layer("head").output
    outputs = combined(images_of())
    assert list(outputs) == ["embedding", "prob"]
    norms = np.linalg.norm(keras.ops.convert_to_numpy(outputs["embedding"]), axis=1)
    np.testing.assert_allclose(norms, 1.0, rtol=1e-5)
    embedding, bn = outputs["embedding"], combined.get_layer("bn_prob")
    expected = combined.get_layer("prob")(bn(keras.ops.relu(embedding)))
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(outputs["prob"]),
        keras.ops.convert_to_numpy(expected),
        rtol=1e-4,
    )


@pytest.mark.parametrize(
    ("base", "layer"),
    [("max_pool", "max_pool"), ("-1", "head"), (-2, "embedding"), ("embedding", "embedding")],
)
def test_classifier_base(base, layer):
    model = build_model(
        "fast-cnn",
        NAMES,
        head=EmbeddingHead(PHI, classifier_branch=True, classifier_base=base),
    )
    assert model.get_layer("relu_prob").input is model.get_layer(layer).output


@pytest.mark.parametrize(
    ("architecture", "head", "message"),
    [
        ("resnet-33", None, "--architecture resnet-33: unknown network"),
        (
            "simple",
            EmbeddingHead(PHI, classifier_base="avg_pool"),
            "--cls_base: needs --cls_weight",
        ),
        ("simple", EmbeddingHead(PHI[:2]), "--embedding: .* for 3 classes"),
        ("resnet-32", EmbeddingHead(PHI), "have 64 .* have 4; use resnet-32-fc"),
        ("resnet-110", EmbeddingHead(PHI), "use resnet-110-fc"),
    ],
)
def test_usage_errors(architecture, head, message):
    with pytest.raises(UsageError, match=message):
        build_model(architecture, NAMES, head=head)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("avgpool", "no such layer; did you mean avg_pool"),
        ("1000", "only .* layers"),
        ("bn1", "use avg_pool or a later layer"),
    ],
)
def test_unusable_classifier_base(base, message):
    with pytest.raises(UsageError, match=f"--cls_base {base}: .*{message}"):
        build_model(
            "simple",
            NAMES,
            head=EmbeddingHead(PHI, classifier_branch=True, classifier_base=base),
        )


def test_wrong_number_of_class_ids():
    with pytest.raises(ValueError, match="2 class ids for 3 classes"):
        build_model("simple", NAMES, class_ids=[1, 2])


def test_mixed_precision_outputs_are_float32_and_finite(mixed_bfloat16):
    model = build_model("fast-cnn", NAMES, head=EmbeddingHead(PHI, classifier_branch=True))
    assert model.get_layer("conv0").compute_dtype == "bfloat16"
    assert model.get_layer("embedding").compute_dtype == "bfloat16"
    for output in model(images_of(), training=True).values():
        assert keras.backend.standardize_dtype(output.dtype) == "float32"
        assert np.isfinite(keras.ops.convert_to_numpy(output)).all()


def test_metrics_are_named_as_the_original_prints_them(combined):
    def correct(labels, outputs):
        return keras.ops.equal(labels, keras.ops.argmax(outputs, axis=-1))

    model = build_model("fast-cnn", NAMES, head=EmbeddingHead(PHI, classifier_branch=True))
    metric = keras.metrics.MeanMetricWrapper
    model.compile(
        loss={"embedding": zero_loss, "prob": "sparse_categorical_crossentropy"},
        metrics={name: [metric(correct, name="acc")] for name in ("embedding", "prob")},
    )
    labels = np.zeros(5, "int32")
    logs = model.evaluate(
        images_of(), {"embedding": labels, "prob": labels}, return_dict=True, verbose=0
    )
    assert {"embedding_acc", "prob_acc"} <= set(logs)


def zero_loss(labels, outputs):
    return 0.0 * outputs


LOAD = """
import os, sys
import numpy as np
import tensorflow  # which takes longest, once for both
folder, order = sys.argv[1], ["keras", "models"]
child = os.fork()
for name in order if child else reversed(order):
    globals()[name] = __import__(name)
model = keras.models.load_model(folder + "/model.keras")
data = np.load(folder + "/expected.npz")
for size in ("small", "large"):
    classes, scores = model.classify(data[size])
    np.testing.assert_array_equal(classes, data[size + "_classes"])
    np.testing.assert_allclose(scores, data[size + "_scores"], rtol=1e-5, atol=1e-6)
np.testing.assert_array_equal(model.class_embeddings, data["phi"])
assert type(model) is models.ImageClassifier
assert model.class_names == ("cat", "dog", "Löwe"), model.class_names
assert model.class_ids == ("n1", "n2", "n3"), model.class_ids
assert model.info == {"loss": "inv_corr", "cls_weight": 0.1}, model.info
assert model.name == "fast-cnn"
assert not any(module in sys.modules for module in ("training", "datasets", "embeddings"))
assert not child or os.wait()[1] == 0
"""


@pytest.fixture(scope="module")
def dump(combined, tmp_path_factory):
    """A trained model as a file, and what it predicts for images of two sizes."""
    folder = tmp_path_factory.mktemp("dump")
    combined.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        # The first is a loss that a reader of the file does not have.
        loss={"embedding": zero_loss, "prob": "sparse_categorical_crossentropy"},
    )
    labels = np.arange(5) % 3
    combined.fit(images_of(), {"embedding": labels, "prob": labels}, epochs=2, verbose=0)
    expected = {"phi": PHI, "small": images_of(8, 12), "large": images_of(20, 16)}
    for size in ("small", "large"):
        expected[f"{size}_classes"], expected[f"{size}_scores"] = combined.classify(expected[size])
    np.savez(folder / "expected.npz", **expected)
    save_model(combined, folder / "model.keras")
    combined.save(folder / "with_optimizer.keras")
    return folder


def test_dumped_model_is_complete_in_itself(dump):
    """Whichever of the two is imported first."""
    command = [sys.executable, "-c", LOAD, dump]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


def test_dump_leaves_the_optimizer_out(dump):
    plain, full = (dump / name for name in ("model.keras", "with_optimizer.keras"))
    assert plain.stat().st_size < 0.6 * full.stat().st_size
    model = keras.models.load_model(full)  # knows nothing of the losses it was trained with
    assert not model.compiled
    np.testing.assert_array_equal(
        model.get_layer("bn0").moving_mean,
        keras.models.load_model(plain).get_layer("bn0").moving_mean,
    )
    assert float(model.get_layer("bn0").step) == 2


def test_dump_holds_no_python_code(dump):
    with zipfile.ZipFile(dump / "with_optimizer.keras") as archive:
        text = archive.read("config.json").decode()
    assert "__lambda__" not in text
    assert "zero_loss" not in text
    modules = {layer["module"] for layer in json.loads(text)["config"]["layers"]}
    assert modules == {"keras.layers", "models.layers", "models.heads"}


JAX = """
import sys
import keras, models
import numpy as np
model = models.build_model(
    "fast-cnn", ["a", "b", "c"], head=models.EmbeddingHead(np.eye(3), classifier_branch=True)
)
images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype("uint8")
labels = np.arange(8) % 3
model.compile(
    keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=10),
    loss={
        "embedding": lambda labels, embeddings: -keras.ops.sum(embeddings, axis=-1),
        "prob": "sparse_categorical_crossentropy",
    },
)
history = model.fit(images, {"embedding": labels, "prob": labels}, batch_size=4, verbose=0)
assert np.isfinite(history.history["loss"][0])
assert float(model.get_layer("bn0").step) == 2
assert float(model.get_layer("bn_prob").step) == 2
assert np.ptp(keras.ops.convert_to_numpy(model.get_layer("bn0").moving_mean)) > 0
assert keras.backend.backend() == "jax"
assert sys.modules.get("tensorflow") is None
"""


def test_jax_trains():
    run("-c", JAX, backend="jax")


def test_import_registers_every_layer():
    for name in models.__all__:
        member = getattr(models, name)
        if isinstance(member, type) and issubclass(member, keras.Layer):
            assert keras.saving.get_registered_object(f"small_data>{name}") is member


@pytest.mark.parametrize("architecture", ["simple", "resnet-32", "resnet-50"])
def test_every_family_is_read_back_bitwise(architecture, tmp_path, monkeypatch):
    make_shallow(monkeypatch)
    model = build_model(architecture, NAMES, info={"image_size": 32})
    save_model(model, tmp_path / "m.keras")
    loaded = models.load_model(tmp_path / "m.keras")
    assert loaded.class_names == model.class_names
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    for variable, expected in zip(loaded.variables, model.variables, strict=True):
        np.testing.assert_array_equal(variable, expected)


def test_both_outputs_are_read_back_in_half_precision(combined, mixed_bfloat16, tmp_path):
    save_model(combined, tmp_path / "m.keras")
    loaded = models.load_model(tmp_path / "m.keras")
    for name, outputs in combined(images_of()).items():
        np.testing.assert_array_equal(loaded(images_of())[name], outputs)
