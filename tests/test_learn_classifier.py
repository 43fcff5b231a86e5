"""The scripts, run as a user runs them, on scikit-learn's digits."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from .programs import ROOT, THIN, run

QUICK = [
    *("--dataset", "digits-sub3", "--batch_size", "90", "--epochs", "2"),
    *("--architecture", "fast-cnn"),
    *("--read_workers", "2", "--no_progress"),
]


def published_grep(output: str) -> list[str]:
    """The published `grep -oP "val_(prob_)?acc: \\K([0-9.]+)" | sort -n | tail -n 1`."""
    return re.findall(r"val_(?:prob_)?acc: ([0-9.]+)", output)


def read_history(log_dir):
    with open(log_dir / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def cosine(tmp_path_factory):
    """A run with the cosine loss and every output; the directory and what it printed."""
    out = tmp_path_factory.mktemp("cosine")
    done = subprocess.run(
        [
            *(sys.executable, "learn_classifier.py", *QUICK),
            *f"--embedding onehot --sgdr_max_lr 0.5 --top_k_acc 2 3 --log_dir {out}/log".split(),
            *f"--model_dump {out}/m.keras --weight_dump {out}/w.weights.h5".split(),
            *f"--feature_dump {out}/f.npz".split(),
        ],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""  # nothing of TensorFlow's start, in particular
    return out, done.stdout


@pytest.fixture(scope="module")
def combined(tmp_path_factory):
    """A run with cosine loss and cross entropy, in mixed precision."""
    out = tmp_path_factory.mktemp("combined")
    done = run(
        "-c", THIN, *QUICK,
        *["--embedding", "onehot", "--cls_weight", "0.1", "--label_smoothing", "0.1"],
        *f"--precision mixed_bfloat16 --output {out}/log --model_dump {out}/m.keras".split(),
    )  # fmt: skip
    return out, done.stdout


def test_output_has_a_report(combined):
    out, _ = combined
    report = (out / "log" / "report.html").read_text()
    accuracy = json.loads((out / "log" / "result.json").read_text())["test"]["test_acc"]
    assert f'<span class="headline">{100 * accuracy:.1f} %</span>' in report
    assert 'id="attention"' in report


def test_output(cosine):
    _, printed = cosine
    lines = printed.splitlines()
    assert lines[0] == (
        "digits-sub3: 30 training images, 990 per epoch, 797 test images, 10 classes"
    )
    epochs = [line for line in lines if line.startswith("Epoch ")]
    assert [line.split(" - ")[0] for line in epochs] == ["Epoch 1/2", "Epoch 2/2"]
    assert re.fullmatch(r"Average Accuracy: 0\.\d{4}", lines[-1])
    found = published_grep("\n".join(epochs))
    assert len(found) == 2
    assert all(re.fullmatch(r"[01]\.\d{4}", value) for value in found)
    best = max(found, key=float)
    assert f"with val_acc: {best} " in printed
    # Learning took place: chance is 0.1.
    assert float(best) > 0.3


def test_output_with_a_classifier_branch(combined):
    _, printed = combined
    epochs = [line for line in printed.splitlines() if line.startswith("Epoch ")]
    found = published_grep("\n".join(epochs))
    assert len(found) == 2
    for line, value in zip(epochs, found, strict=True):
        assert f"val_prob_acc: {value}" in line
        assert "val_embedding_acc: " in line


def test_history_and_result(cosine):
    out, printed = cosine
    rows = read_history(out / "log")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[0]["learning_rate"]) == pytest.approx(0.5)
    assert float(rows[1]["learning_rate"]) == pytest.approx(0.4665064179)
    wanted = {"loss", "acc", "val_loss", "val_acc", "val_top2_acc", "seconds", "images_per_second"}
    assert wanted <= set(rows[0])
    result = json.loads((out / "log" / "result.json").read_text())
    assert result["arguments"]["dataset"] == "digits-sub3"
    assert result["arguments"]["loss"] == "inv_corr"
    assert result["dataset"]["train_images"] == 30
    assert result["parameters"]["trainable"] == 1_185_866
    assert {"keras", "python", "numpy"} <= set(result["versions"])
    assert result["command"].startswith("python ")
    assert result["selected_on"] == "test"
    assert "selected on: test" in printed
    final = result["final"]
    with open(out / "log" / "predictions.csv", newline="") as file:
        predictions = list(csv.DictReader(file))
    hits = sum(row["true"] == row["predicted"] for row in predictions)
    assert hits / 797 == result["test"]["test_acc"] == final["acc"]
    assert len(predictions[0]) == 3 + 1 + 2 * 4
    # The last epoch's validation and the final evaluation see the same weights.
    assert final["acc"] == pytest.approx(float(rows[-1]["val_acc"]), abs=1e-6)
    assert final["loss"] == pytest.approx(float(rows[-1]["val_loss"]), rel=1e-4)
    assert final["top3_acc"] == pytest.approx(float(rows[-1]["val_top3_acc"]), abs=1e-6)
    assert f"Average Accuracy: {final['average_acc']:.4f}" in printed
    assert any(path.name.startswith("events.out.tfevents") for path in (out / "log").iterdir())


def test_evaluation_equals_what_training_printed(cosine, combined, tmp_path):
    models = [flag for out, _ in (cosine, combined) for flag in ("--model", out / "m.keras")]
    done = run(
        "evaluate_classifier.py", *models, "--top_k_acc", 2, 3, "--json", tmp_path / "scores.json"
    )
    rows = json.loads((tmp_path / "scores.json").read_text())["models"]
    # Similarities and probabilities have no mean.
    assert "no ensemble: the models have different kinds of scores" in done.stderr
    for (out, _), row in zip((cosine, combined), rows, strict=True):
        trained = json.loads((out / "log" / "result.json").read_text())["final"]
        assert {name: row[name] for name in trained} == pytest.approx(trained, rel=1e-5)
        assert f"{trained['acc']:.4f}" in done.stdout
        assert row["n"] == 797
        assert row["acc_interval"][0] < trained["acc"] < row["acc_interval"][1]


def test_a_dumped_model_is_complete_in_itself(cosine):
    """Loaded elsewhere with Keras and an import of `models`."""
    out, _ = cosine
    script = """
import sys
import models, keras
import numpy as np
from sklearn.datasets import load_digits

model = keras.models.load_model(sys.argv[1])
digits = np.repeat((load_digits().images[1000:] * 255 / 16).round()[..., None], 3, axis=3)
features = np.load(sys.argv[2])
classes, scores = model.classify(digits)
np.testing.assert_array_equal(classes, np.argmax(features["features"], axis=1))
np.testing.assert_allclose(scores, features["features"], atol=1e-5)
assert list(model.class_names) == list(features["class_names"]) == [str(i) for i in range(10)]
assert model.class_embeddings.shape == (10, 10)
assert model.predict(np.zeros((2, 20, 12, 3), "uint8"), verbose=0).shape == (2, 10)
"""
    run("-c", script, out / "m.keras", out / "f.npz")


def test_feature_dump(cosine):
    out, _ = cosine
    with np.load(out / "f.npz", allow_pickle=False) as dump:
        assert dump["features"].shape == (797, 10)
        assert dump["features"].dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(dump["features"], axis=1), 1, atol=1e-5)
        assert dump["labels"].shape == (797,)
        assert list(dump["class_ids"]) == list(range(10))


def test_a_diverging_loss_stops_the_run(tmp_path):
    """The third epoch's rate is absurd: what was logged before stays."""
    done = run(
        "tests.training.small_command", *QUICK, "--epochs", 4, "--clipgrad", 0,
        "--lr_schedule", "SGD", "--sgd_schedule", "1:0.01,3:1e30,4", "--log_dir", tmp_path / "log",
        status=1,
    )  # fmt: skip
    assert re.search(
        r"^learn_classifier\.py: error: the loss is no longer finite in epoch 3, step \d+, "
        r"at learning rate 1e\+30: ",
        done.stderr,
        re.MULTILINE,
    )
    assert "Traceback" not in done.stderr
    rows = read_history(tmp_path / "log")
    assert [row["epoch"] for row in rows] == ["1", "2"]


def test_per_output_losses_of_the_history_are_those_of_the_evaluation(combined):
    """The last batch is smaller, and Keras' own average counts it as much as the others."""
    out, _ = combined
    row = read_history(out / "log")[-1]
    final = json.loads((out / "log" / "result.json").read_text())["final"]
    for name in ("loss", "embedding_loss", "prob_loss", "embedding_acc", "prob_acc"):
        assert final[name] == pytest.approx(float(row[f"val_{name}"]), rel=1e-3)


def test_evaluation_on_some_of_the_classes(cosine, tmp_path):
    """Classes are matched by id, so that other test sets may lack some or number them otherwise."""
    out, _ = cosine
    (tmp_path / "three.txt").write_text("7\n3\n5\n")
    flags = ["--class_list", tmp_path / "three.txt", "--json", tmp_path / "scores.json"]
    run("evaluate_classifier.py", "--model", out / "m.keras", *flags)
    [row] = json.loads((tmp_path / "scores.json").read_text())["models"]
    with np.load(out / "f.npz") as dump:
        chosen = np.isin(dump["labels"], [3, 5, 7])
        hits = dump["features"][chosen].argmax(axis=1) == dump["labels"][chosen]
    assert row["acc"] == pytest.approx(hits.mean(), abs=1e-6)


def test_evaluation_refuses_what_it_cannot_score(cosine, tmp_path):
    out, _ = cosine
    done = run("evaluate_classifier.py", "--model", tmp_path / "absent.keras", status=2)
    assert "absent.keras: there is no such file" in done.stderr
    (tmp_path / "bad.keras").write_bytes((out / "m.keras").read_bytes()[:1000])
    done = run("evaluate_classifier.py", "--model", tmp_path / "bad.keras", status=1)
    assert "bad.keras" in done.stderr
    assert "Traceback" not in done.stderr
    done = run("evaluate_classifier.py", "--model", out / "m.keras", "--image_size", 4, status=2)
    assert "--image_size 4: fast-cnn needs images of at least 8 x 8" in done.stderr
    for name in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / name / f"{name.replace('/', '-')}.png")
    flags = ["--dataset", "folder", "--data_root", tmp_path, "--image_size", 8]
    done = run("evaluate_classifier.py", "--model", out / "m.keras", *flags, status=2)
    assert "knows 10 classes of digits-sub3, but not 2 of the 2 of --dataset folder" in done.stderr


def test_predictions_of_single_images(cosine, tmp_path):
    out, _ = cosine
    digits = load_digits()
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(1000, 1003):
        grey = (digits.images[i] * 255 / 16).round().astype("uint8")
        Image.fromarray(grey).save(folder / f"{i}.png")
    flags = ["--model", out / "m.keras", "--top_k", 2]
    # A folder stands for all that is below it, but for hidden files and what is no image.
    (folder / "more").mkdir()
    (folder / "1002.png").rename(folder / "more" / "1002.png")
    for name in ("._1001.png", "more/.1002.png", "more/broken.png", "more/notes.txt"):
        (folder / name).write_text("no image")
    done = run("predict.py", *flags, folder / "1001.png", folder, status=1)
    [line] = done.stderr.splitlines()
    assert line.startswith(f"predict.py: error: {folder}/more/broken.png: cannot be read as an im")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [Path(line[0]).name for line in lines] == [
        "1001.png",
        "1000.png",
        "1001.png",
        "1002.png",
    ]
    with np.load(out / "f.npz") as dump:
        for line, image in zip(lines, (1, 0, 1, 2), strict=True):
            best = np.argsort(-dump["features"][image])[:2]
            assert line[1:] == [f"{i}: {dump['features'][image][i]:.4f}" for i in best]
    done = run("predict.py", *flags, tmp_path / "absent.png", status=2)
    assert "absent.png: there is no such file" in done.stderr


def test_jax_trains_where_tensorflow_is_not_installed(tmp_path):
    missing = """
import sys
assert sys.modules["tensorflow"] is None  # an import of it fails, and failed for what is loaded
"""
    flags = [
        *QUICK,
        *"--epochs 1 --lr_schedule CLR --embedding onehot --cls_weight 0.1".split(),
        *f"--harmonic first --plain_dump {tmp_path}/plain.keras --tta flip".split(),
    ]
    done = run("-c", missing + THIN, *flags, "--model_dump", tmp_path / "m.keras", backend="jax")
    [epoch] = [line for line in done.stdout.splitlines() if line.startswith("Epoch ")]
    [accuracy] = published_grep(epoch)
    assert f"Test without tta: test_acc: {accuracy} " in done.stdout
    [mirrored_too] = re.findall(r"^Test: test_acc: ([0-9.]+) ", done.stdout, re.MULTILINE)
    # What JAX trained, TensorFlow evaluates, and the same with plain convolutions.
    dumps = [part for name in ("m", "plain") for part in ("--model", tmp_path / f"{name}.keras")]
    rows = run("evaluate_classifier.py", *dumps, "--tta", "flip").stdout.splitlines()[1:3]
    assert [f" {mirrored_too} " in row for row in rows] == [True, True]
