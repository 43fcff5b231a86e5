"""Exported models are what the model is, and say what is needed to use them."""

import json
import re
import shutil

import keras
import numpy as np
import onnx
import pytest
from PIL import Image

import export_model
import models
import predict
from deployment import checking, exported, exporting
from deployment.facts import Facts
from scoring import View
from utils import UsageError, UserError

from ..datasets.conftest import photo
from ..programs import ROOT
from .conftest import CLASSES, SIDE, build


@pytest.fixture(scope="module")
def export(dumps, photos):
    """`export(name, arguments)` runs `export_model.py` in this process, on the photographs."""

    def export(name, *arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KERAS_BACKEND", "tensorflow")
            argv = ["export_model.py", dumps[name], "--images", photos[0].parent]
            patch.setattr("sys.argv", [str(part) for part in (*argv, *arguments)])
            export_model.main()

    return export


@pytest.fixture(scope="module")
def onnx_file(export, tmp_path_factory):
    """An embedding with a temperature, as ONNX."""
    path = tmp_path_factory.mktemp("onnx") / "m.onnx"
    export("cosine", "--out", path)
    return path


@pytest.fixture(scope="module")
def litert_file(export, tmp_path_factory):
    """A softmax classifier of 8 bits, as LiteRT."""
    path = tmp_path_factory.mktemp("litert") / "m.tflite"
    export("softmax", "--out", path, "--quantize", "int8", "--agreement", 0.5)
    return path


def documented() -> list[str]:
    """The programs on the page."""
    return re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs/deployment.md").read_text(), re.M | re.S
    )


def test_the_documented_preprocessing_is_the_models_own_bit_by_bit(dumps, photos, tmp_path):
    scope = {}
    exec(documented()[0], scope)
    facts = {"image_size": 24, "test_resize": 28, "exif_rotation": True}
    model = models.load_model(dumps["softmax"])
    random = np.random.default_rng(0)
    sizes = [(24, 24), (28, 28), (7, 300), *random.integers(5, 120, (30, 2))]
    for i, (width, height) in enumerate(sizes):
        Image.fromarray(photo(width, height, seed=i)).save(tmp_path / f"{i}.png")
    Image.fromarray(photo(99, 77)).convert("LA").save(tmp_path / "grey.png")
    for path in (*photos, *tmp_path.iterdir()):
        seen = scope["preprocess"](path, facts)
        assert seen.dtype == np.uint8
        np.testing.assert_array_equal(seen, model.preprocess(path), str(path))


def test_an_onnx_file_is_used_without_this_code(onnx_file, dumps, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(onnx_file, "M.onnx")
    shutil.copy(photos[1], "photo.jpg")
    scope = {}
    for program in (documented()[0], documented()[2]):
        exec(program, scope)
    classes, scores = models.load_model(dumps["cosine"]).classify_files([photos[1]])
    np.testing.assert_allclose(scope["scores"], scores, atol=1e-5)
    assert scope["facts"]["class_names"][classes[0]] == CLASSES[classes[0]]
    assert scope["facts"]["temperature"] == 0.25
    assert scope["facts"]["scores"] == "probabilities"
    [image] = scope["session"].get_inputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["batch", 24, 24, 3])
    outputs = {output.name: output.shape for output in scope["session"].get_outputs()}
    assert outputs == {"scores": ["batch", 3], "embedding": ["batch", 3]}


def test_a_litert_file_is_used_without_this_code(litert_file, dumps, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(litert_file, "M.tflite")
    shutil.copy(photos[1], "photo.jpg")
    scope = {"json": json}
    for program in (documented()[0], documented()[3]):
        exec(program, scope)
    _, scores = models.load_model(dumps["softmax"]).classify_files([photos[1]])
    assert 1e-6 < np.abs(scope["scores"] - scores).max() < 0.1  # it has 8 bits
    assert scope["facts"]["class_ids"] == [0, 1, 2]
    assert scope["facts"]["temperature"] is None
    assert litert_file.stat().st_size < 0.5 * dumps["softmax"].stat().st_size


def test_predictions_of_exported_files(onnx_file, litert_file, dumps, photos, monkeypatch, capsys):
    """Also together with a model that Keras computes."""

    def predicted(*paths):
        flags = [flag for path in paths for flag in ("--model", str(path))]
        argv = ["predict.py", *flags, "--tta", "flip", "--top_k", "3", "--json", *map(str, photos)]
        monkeypatch.setattr("sys.argv", argv)
        assert predict.main() == 0
        found = []
        for item in json.loads(capsys.readouterr().out):
            by_class = {other["class"]: other["score"] for other in (item, *item["next_best"])}
            found.append([by_class[name] for name in CLASSES])
        return np.array(found)

    expected = predicted(dumps["cosine"])
    np.testing.assert_allclose(predicted(onnx_file), expected, atol=1e-5)
    small = predicted(litert_file)
    together = predicted(onnx_file, litert_file, dumps["cosine"])
    np.testing.assert_allclose(together, (2 * expected + small) / 3, atol=1e-5)


def test_a_saved_model_is_exact(export, dumps, photos, tmp_path, capsys):
    folder = tmp_path / "saved"
    export("softmax", "--out", folder)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("The same class for 4 of 4 images; largest difference of scores: ")
    assert float(lines[0].split(": ")[1]) < 1e-5
    assert re.fullmatch(rf"{folder}: \d+\.\d\d MB, \d+\.\d\d ms per image", lines[2])
    facts = Facts.from_json((folder / "assets.extra" / "image_classifier.json").read_text())
    assert facts.view == View(24, 28, True)
    assert facts.class_names == CLASSES
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    with pytest.raises(UsageError, match="saved: is there already"):
        export("softmax", "--out", folder)


def test_a_file_that_disagrees_is_not_left(export, onnx_file, tmp_path, monkeypatch, capsys):
    def write(model, path, *_):
        shutil.copy(onnx_file, path)

    monkeypatch.setattr(exporting, "write_exported", write)
    with pytest.raises(UserError, match=r"not written, as it agrees with .* on \d+\.00% of the i"):
        export("softmax", "--out", tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_is_exported_has_plain_layers_in_float32():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = build(models.EmbeddingHead(np.eye(3), classifier_branch=True), harmonic="first")
    keras.config.set_dtype_policy(before)
    model.temperature = 3.0
    images = checking.random_images(SIDE, 5)
    serving = exporting._serving(model, SIDE)
    layers = [inner for layer in serving.layers for inner in getattr(layer, "layers", [layer])]
    assert len(layers) > 20
    assert {layer.compute_dtype for layer in layers} <= {"float32", "uint8"}
    assert not any(isinstance(layer, models.HarmonicFilters) for layer in layers)
    outputs = serving.predict(images, verbose=0)
    np.testing.assert_allclose(outputs["scores"], model.batch_scores(images), atol=0.02)
    np.testing.assert_allclose(
        outputs["embedding"], model.predict(images, verbose=0)["embedding"], atol=0.05
    )


class Shifted:
    """Scores that are another's, but for the first images."""

    def __init__(self, model, wrong):
        self.model, self.wrong, self.seen = model, wrong, -checking.BATCH

    def batch_scores(self, images):
        scores = self.model.batch_scores(images)
        rolled = np.arange(self.seen, self.seen + len(images)) < self.wrong
        self.seen += len(images)
        return np.where(rolled[:, None] & (self.seen > 0), np.roll(scores, 1, axis=1), scores)


def test_a_comparison_counts_the_images_of_all_batches(onnx_file):
    model = exported.read_exported(onnx_file)
    images = checking.random_images(SIDE, 2 * checking.BATCH + 5)
    found = checking.compare(model, Shifted(model, checking.BATCH + 3), images)
    assert (found.images, found.same) == (len(images), checking.BATCH + 2)
    assert found.classes == len(set(model.batch_scores(images).argmax(axis=1).tolist()))
    assert found.difference > 0.01
    assert min(found.milliseconds) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--out m.onnx --format litert", r"the file's name must end in .tflite"),
        ("--out m --quantize int8", "saved_model has no such form; give --format onnx or litert"),
        ("--out m.onnx --dataset digits", "come from one of them"),
        ("--out m.h5", r"m\.h5: ends neither in \.onnx nor in \.tflite"),
        ("--out m.onnx --images absent", "--images absent: there is no such folder"),
    ],
)
def test_wrong_arguments(export, arguments, message):
    with pytest.raises(UsageError, match=message):
        export("softmax", *arguments.split())


def test_files_of_other_programs_are_refused(dumps, onnx_file, litert_file, tmp_path):
    bad = tmp_path / "m.onnx"
    bad.write_bytes(b"no model")
    with pytest.raises(UserError, match=r"m\.onnx: damaged or not an ONNX file that ONNX Runtime"):
        exported.read_exported(bad)
    bare = tmp_path / "m.tflite"
    bare.write_bytes(litert_file.read_bytes().partition(b"PK\x03\x04")[0])
    with pytest.raises(UserError, match="it does not say which classes it knows"):
        exported.read_exported(bare)
    for wrong in ("[]", "{", '{"class_names": []}', '{"class_names": ["a"], "class_ids": [0]}'):
        with pytest.raises(ValueError, match=r"\w"):
            Facts.from_json(wrong)


def hostile_onnx(path, onnx_file, *nodes):
    """A model with the facts of another, that computes with numbers of its own besides."""
    facts = onnx.load(onnx_file).metadata_props
    helper, kinds = onnx.helper, onnx.TensorProto
    image = helper.make_tensor_value_info("image", kinds.UINT8, ["n", SIDE, SIDE, 3])
    result = helper.make_tensor_value_info("scores", kinds.FLOAT, None)
    made = helper.make_model(helper.make_graph(nodes, "g", [image], [result]), ir_version=9)
    made.opset_import[0].version = 17
    made.metadata_props.extend(facts)
    onnx.save(made, path)


def test_models_that_take_the_memory_or_the_time_are_refused(onnx_file, tmp_path, monkeypatch):
    helper, kinds = onnx.helper, onnx.TensorProto
    path = tmp_path / "m.onnx"

    def constant(name, value, kind=kinds.INT64, shape=()):
        tensor = helper.make_tensor(name, kind, shape, [value])
        return helper.make_node("Constant", [], [name], value=tensor)

    huge = helper.make_node("ConstantOfShape", ["length"], ["scores"])
    hostile_onnx(path, onnx_file, constant("length", 2**29, shape=(1,)), huge)
    with pytest.raises(UserError, match=r"m\.onnx: damaged or not an ONNX file"):
        exported.read_exported(path)

    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Sin", ["x"], ["y"])],
        "body",
        [helper.make_tensor_value_info("i", kinds.INT64, ()),
         helper.make_tensor_value_info("go", kinds.BOOL, ()),
         helper.make_tensor_value_info("x", kinds.FLOAT, ())],
        [helper.make_tensor_value_info("on", kinds.BOOL, ()),
         helper.make_tensor_value_info("y", kinds.FLOAT, ())],
    )  # fmt: skip
    loop = helper.make_node("Loop", ["times", "go", "x"], ["scores"], body=body)
    inputs = [constant("times", 2**62), constant("go", True, kinds.BOOL)]
    hostile_onnx(path, onnx_file, *inputs, constant("x", 1.0, kinds.FLOAT), loop)
    monkeypatch.setattr("foreign_files.door.READ_TIMEOUT", 2)
    with pytest.raises(UserError, match="does not come to an end"):
        exported.read_exported(path)
