"""`report.py` and the report at a training's end, on a run that is really trained."""

import dataclasses
import json
import re
import shutil
import types

import numpy as np
import pytest
import scipy.special
import sklearn.metrics

import models
import report
from datasets.batches.split import Split
from experiments import sweep_plan
from reports import findings, run_sections, writing
from reports import material as materials
from tests.reports.made_run import make_run
from tests.reports.page import Page, check_alone
from training import data
from utils import UsageError, UserError


def call(monkeypatch, *argv):
    monkeypatch.setattr("sys.argv", ["report.py", *map(str, argv)])
    report.main()


def change_result(directory, change):
    """Changes a run's `result.json`."""
    result = json.loads((directory / "result.json").read_text())
    change(result)
    (directory / "result.json").write_text(json.dumps(result))
    return result


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with 150 validation images: directory, arguments, model, data set, evaluation."""
    directory = tmp_path_factory.mktemp("runs") / "first"
    directory.mkdir()
    return directory, *make_run(directory, "--validation_fraction", "0.5")


@pytest.fixture
def own(finished, tmp_path):
    """A copy of the run's directory, to change."""
    return shutil.copytree(finished[0], tmp_path / "run")


def test_a_report_says_what_the_run_says(finished, tmp_path, monkeypatch):
    directory, _, _, _, result = finished
    call(monkeypatch, directory, "--out", tmp_path / "r.html")

    text = (tmp_path / "r.html").read_text()
    page = Page(text)
    check_alone(page)
    assert len(text) < 600_000
    assert not re.search(r"url\(|@import|https?://", text.partition("</head>")[0])
    said = json.loads((directory / "result.json").read_text())
    [run] = json.loads(page.data)["runs"]
    assert run == {"directory": "first", **said}
    low, high = said["test"]["test_acc_interval"]
    assert (
        f"{100 * said['test']['test_acc']:.1f} %of 797 test images are classified rightly (95 % "
        f"interval {100 * low:.1f} % to {100 * high:.1f} %)"
    ) in page.text
    assert "150 training images, 150 validation images, 797 test images" in page.text
    assert "validation images, which were kept out of the training" in page.text
    assert page.keys == {
        "verdict", "cautions", "curves", "classes", "confusions", "images", "attention",
        "calibration", "augmented", "repeat",
    }  # fmt: skip
    found = json.loads(page.data)["report"]
    predicted = result.class_scores.argmax(axis=1)
    np.testing.assert_allclose(
        [row["recall"] for row in found["classes"]],
        sklearn.metrics.recall_score(result.labels, predicted, average=None),
    )
    values = found["calibration"]["as trained"]
    own = result.class_scores[np.arange(797), result.labels]
    assert values["negative log-likelihood"] == pytest.approx(-np.log(own).mean(), rel=1e-4)
    assert "The model has no temperature" in page.text


def test_names_are_no_html(finished, monkeypatch, tmp_path):
    _, args, model, dataset, result = finished
    names = ["<script>alert(1)</script>", "\"><img src=x onerror='alert(1)'>", "</section>", "&lt;"]
    found = materials.of_training(args, model, dataset, result)
    found.scores.class_names = [*names, "caf\udce9\x1b\n", *"56789"]
    folder = "<b>/caf\udce9/" + "long" * 30
    found.scores.image_names = [f"{folder}/\"{i}'>.jpg" for i in found.scores.image_names]
    found.missing = ["<b onclick=x>", folder]
    found.run.result["command"] = "python </pre><script>alert(2)</script>"
    monkeypatch.setattr(dataset, "class_names", found.scores.class_names)

    writing.write(found, tmp_path / "r.html")

    text = (tmp_path / "r.html").read_text()
    page = Page(text)
    check_alone(page)
    assert all(name in page.text for name in [*names, "caf\ufffd\ufffd\ufffd"])
    assert "\x1b" not in text
    worst = findings.most_wrong(found.scores, 24)
    assert all(f"longlong/\"{i}'>.jpg" in page.text for i in worst)  # a path's end is what counts
    assert "alert(2)" in json.loads(page.data)["runs"][0]["command"]


def test_a_temperature_is_fitted_on_validation_images_and_kept(own, monkeypatch, capsys):
    before = models.load_model(own / "model.keras")
    call(monkeypatch, own, "--temperature")

    model = models.load_model(own / "model.keras")
    [run] = materials.read_runs([str(own)])
    held_out = data.load_dataset(materials.resolved_arguments(run, None)).validation
    scores = before.classify(held_out.images)[1].astype("float64")

    def loss(temperature):
        shares = scipy.special.softmax(np.log(scores) / temperature, axis=1)
        return sklearn.metrics.log_loss(held_out.labels, shares)

    found = model.temperature
    assert loss(found) < min(loss(found * 1.01), loss(found / 1.01))
    assert f"The temperature {found:.3f} was fitted on 150 validation" in capsys.readouterr().out
    for old, new in zip(before.weights, model.weights, strict=True):
        np.testing.assert_array_equal(old.numpy(), new.numpy())
    numbers = json.loads(Page((own / "report.html").read_text()).data)["report"]["calibration"]
    assert numbers["temperature"] == found
    assert f"with temperature {found:.3g}" in numbers


def test_no_temperature_without_enough_validation_images(own, monkeypatch):
    unchanged = (own / "model.keras").read_bytes()
    for share, message in {
        0.2: "at least 100 validation images, but there are 60",
        None: "held no validation images out",
    }.items():
        change_result(own, lambda r, s=share: r["arguments"].update(validation_fraction=s))
        with pytest.raises(UserError, match=f"^--temperature: .*{message}"):
            call(monkeypatch, own, "--temperature")
    assert (own / "model.keras").read_bytes() == unchanged


def test_similarities_become_probabilities(tmp_path, monkeypatch):
    directory = tmp_path / "cosine"
    directory.mkdir()
    *_, result = make_run(directory, "--validation_fraction", "0.5", embedding=True)
    call(monkeypatch, directory)
    page = Page((directory / "report.html").read_text())
    assert "The scores are similarities and no probabilities" in page.text

    call(monkeypatch, directory, "--temperature")

    numbers = json.loads(Page((directory / "report.html").read_text()).data)["report"]
    temperature = models.load_model(directory / "model.keras").temperature
    shares = scipy.special.softmax(result.class_scores.astype("float64") / temperature, axis=1)
    [values] = [v for v in numbers["calibration"].values() if isinstance(v, dict)]
    assert values["negative log-likelihood"] == pytest.approx(
        sklearn.metrics.log_loss(result.labels, shares), rel=1e-4
    )


def test_scores_are_of_the_images_and_weights_that_the_run_ended_with(finished, monkeypatch):
    directory, args, model, dataset, _ = finished
    args = types.SimpleNamespace(**{**vars(args), "finish_size": 16, "ema": 100, "tta": "flip"})
    [run] = materials.read_runs([str(directory)])
    others = {"test_last_weights": {"test_acc": 0.123}, "test_without_tta": {"test_acc": 0.456}}
    run = dataclasses.replace(run, result=run.result | others)
    material = materials.Material([run], [[]], args, model)
    materials.load_images(material, required=True)
    assert (material.dataset.image_size, material.trained_on.image_size) == (16, 8)
    materials.score(material)
    images = np.concatenate([b[0] for b in material.dataset.test_batches(100)])[: len(dataset.test)]
    flipped = [model.predict(view, verbose=0) for view in (images, images[:, :, ::-1])]
    np.testing.assert_allclose(material.scores.values, np.mean(flipped, axis=0), atol=1e-6)
    text = " ".join(Page(run_sections.verdict(material)).text.split())
    assert "averages of the weights over the steps (--ema), as means over each image" in text
    assert "with the last weights12.3 %with the image alone45.6 %" in text


def test_several_seeds_are_a_mean_and_a_spread(own, tmp_path, monkeypatch):
    other = shutil.copytree(own, tmp_path / "other")
    first = json.loads((own / "result.json").read_text())["final"]["acc"]

    def change(result):
        result["final"]["acc"] = first - 0.1
        result["arguments"]["seed"] = result["seed"] = 2
        result["best"]["val_acc"] += 0.01

    change_result(other, change)
    call(monkeypatch, own, other, "--out", tmp_path / "r.html")

    page = Page((tmp_path / "r.html").read_text())
    check_alone(page)
    assert f"{100 * (first - 0.05):.1f} %of the test images are" in page.text
    assert f"over 2 runs: standard deviation {100 * 0.1 / 2**0.5:.1f} points" in page.text
    assert "Details below are of other, the best on its validation images." in page.text
    assert "bands the 95 % intervals" in page.text

    change_result(other, lambda result: result["arguments"].update(batch_size=30))
    with pytest.raises(UsageError, match="differ in their seed alone, but these have batch_size"):
        call(monkeypatch, own, other, "--out", tmp_path / "r.html")


def test_pictures_get_the_room_that_many_classes_leave(finished, monkeypatch):
    assert writing._MOST_BYTES < 3_000_000
    monkeypatch.setattr(writing, "_MOST_BYTES", 2_000_000)
    _, args, _, dataset, _ = finished
    random = np.random.default_rng(0)
    names = [f'"{i}" & {"long " * 30}' for i in range(1000)]
    labels = random.integers(0, 1000, 6000)
    noise = random.integers(0, 256, (96, 96, 3), "uint8")
    test = Split(np.broadcast_to(noise, (6000, *noise.shape)), labels)
    result = types.SimpleNamespace(labels=labels, class_scores=random.random((6000, 1000)))
    found = materials.of_training(args, None, dataset, result)
    spec = dataclasses.replace(dataset.spec, image_size=96)
    found.dataset = dataclasses.replace(dataset, spec=spec, test=test, class_names=names)
    found.scores.class_names, found.scores.image_names = names, names * 6

    text = writing.page(found)

    assert 1_600_000 < len(text.encode()) < 2_000_000
    assert text.count("<img") > 30
    assert "no room" in text


def test_a_report_of_what_is_there(own, tmp_path, monkeypatch, capsys):
    gone = {"dataset": "CIFAR-10", "data_root": str(tmp_path / "gone"), "model_dump": None}
    result = change_result(own, lambda result: result["arguments"].update(gone))
    (own / "model.keras").unlink()
    call(monkeypatch, own)

    page = Page((own / "report.html").read_text())
    check_alone(page)
    output = capsys.readouterr().err
    for said in ("The images are not at hand", "The model is not at hand"):
        assert said in page.text
        assert f"warning: {said}" in output
    assert "img" not in page.tags
    numbers = json.loads(page.data)["report"]
    right = sum(row["recall"] * row["images"] for row in numbers["classes"])
    assert right / 797 == pytest.approx(result["final"]["acc"])
    assert "negative log-likelihood" not in numbers["calibration"]["as trained"]
    with pytest.raises(UserError, match="gone"):
        call(monkeypatch, own, "--data_root", tmp_path / "gone")


def test_test_images_that_were_trained_on_are_shown(finished):
    _, args, _, dataset, _ = finished
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (30, 4, 4, 3), "uint8")
    images = coarse.repeat(8, axis=1).repeat(8, axis=2)
    train = Split(images[:20], np.arange(20) % 10)
    test = Split(images[[3, *range(20, 29)]], np.arange(10))
    spec = dataclasses.replace(dataset.spec, image_size=32)
    found = materials.of_training(
        args, None, dataset, types.SimpleNamespace(labels=test.labels, class_scores=np.eye(10))
    )
    found.dataset = dataclasses.replace(dataset, spec=spec, train=train, test=test)

    page = Page(writing.page(found))

    check_alone(page)
    assert "1 of 10 test images look nearly like a training image" in page.text
    assert "duplicates" in page.keys
    assert json.loads(page.data)["report"]["near_duplicates"] == 1
    # The two have different labels.
    assert "0 ≠ 3" in page.text
    found.dataset.test = Split(images[20:29], np.arange(9))
    found.scores.labels, found.scores.values = np.arange(9), np.eye(10)[:9]
    assert "duplicates" not in Page(writing.page(found)).keys


def test_how_far_off_and_at_the_edge_of_a_sweep(finished, tmp_path, monkeypatch):
    sweep = tmp_path / "sweep"
    directory = shutil.copytree(finished[0], sweep / "trials" / "0001")
    plan = sweep_plan.Plan(base=(), tune=(("batch_size", "int", "20", "60"),))
    (sweep / "sweep.json").write_text(json.dumps(dataclasses.asdict(plan)))
    lines = [f"{100 + i // 5} {i}" for i in range(10)] + ["102 100", "102 101"]
    (tmp_path / "H.txt").write_text("\n".join(lines))
    change_result(directory, lambda result: result["final"].update(acc=0.99))
    call(monkeypatch, directory, "--hierarchy", tmp_path / "H.txt")

    page = Page((directory / "report.html").read_text())
    assert re.search(r" taken for \d: \d+ of \d+ \([12] of 2 levels apart\)", page.text)
    assert "two classes by chance1.56 of 2 levels apart" in page.text
    assert "The best batch_size, 20, lies at the edge of what was tried" in page.text
    assert "and not 99.0 % as at the end of the run: it is another model" in page.text


@pytest.mark.parametrize(
    "change",
    [
        {"test": [1]},
        {"final": {"acc": "high"}},
        {"final": {}},
        {"best": {"epoch": []}},
        {"arguments": {}},
        {"test": {"test_acc_interval": [0.1]}},
        {"wall_seconds": "long"},
        {"selected_on": ["test"]},
    ],
)
def test_a_result_of_another_form_is_one_line(own, monkeypatch, change):
    change_result(own, lambda result: result.update(change))
    with pytest.raises(UserError, match=r"result\.json: (its .* is nothing|is no result)"):
        call(monkeypatch, own)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nowhere", "--out", "r.html"], "nowhere: there is no such directory"),
        ([".", "--out", "r.html"], "no finished run"),
        ([".", "--out", "r.txt"], r"must end in \.html"),
        ([".", "--model", "m.keras"], r"--model m\.keras: there is no such file"),
        ([".", "other"], "--out is missing: a report of several directories"),
    ],
)
def test_wrong_arguments_are_one_line(argv, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        call(monkeypatch, *argv)


def test_a_report_that_fails_is_a_warning(finished, monkeypatch, caplog, tmp_path):
    _, args, _, dataset, result = finished
    monkeypatch.setattr(args, "output", str(tmp_path))

    def fail(_):
        raise ZeroDivisionError("by zero")

    with monkeypatch.context() as patch:
        patch.setattr(writing, "page", fail)
        writing.write_after_training(args, None, dataset, result)
    assert re.search(r"report\.html: not written \(by zero\)", caplog.text)
    assert not list(tmp_path.iterdir())
    # A model that several devices share is not asked, and no places are shown.
    writing.write_after_training(args, None, dataset, result)
    assert "attention" not in Page((tmp_path / "report.html").read_text()).keys
