"""What `.keras` files say of themselves, and what of it reaches the terminal."""

import os
import resource
import sys

import pytest
from PIL import Image

import models
import predict
from models import model_files
from training.reporting import evaluation
from utils import UserError

from .changed_models import save_changed

pytestmark = pytest.mark.usefixtures("forked_reading")


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
