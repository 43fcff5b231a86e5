"""`predict.py` as a user runs it, but in this process."""

import csv
import io
import json
import os

import numpy as np
import pytest

import models
import predict
import scoring
from deployment import labels
from foreign_files import image_files
from scoring import View
from utils import UsageError

from .conftest import CLASSES


@pytest.fixture
def label(monkeypatch, capsys):
    """`label(arguments, stdin=…)`: the status, and what is printed to stdout and stderr."""

    def label(*arguments, stdin=b""):
        monkeypatch.setattr("sys.argv", ["predict.py", *map(str, arguments)])
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = predict.main()
        return status, *capsys.readouterr()

    return label


@pytest.fixture(scope="module")
def scores(dumps, photos):
    """What each model says of the photographs."""
    paths = [path for name, path in dumps.items() if name != "pigs"]
    found = {path.stem: models.load_model(path).classify_files(photos)[1] for path in paths}
    assert len({tuple(row) for row in found["softmax"].round(3)}) == len(photos)
    return found


def shown(row, count):
    names = [name.replace("\x1b", "?") for name in CLASSES]
    return [f"{names[i]}: {row[i]:.4f}" for i in np.argsort(-row)[:count]]


def test_a_list_on_standard_input_in_the_place_of_the_dash(label, dumps, photos, scores, tmp_path):
    ends = zip(photos[:3], (b"\n", b"\r\n", b"\n\n"), strict=True)
    lines = b"".join(os.fsencode(path) + end for path, end in ends)
    status, out, _ = label("--model", dumps["softmax"], "--top_k", 3, photos[3], "-", stdin=lines)
    assert status == 0
    expected = ["\t".join([str(photos[i]), *shown(scores["softmax"][i], 3)]) for i in (3, 0, 1, 2)]
    assert out.splitlines() == expected
    with pytest.raises(UsageError, match="-: there are no paths on standard input"):
        label("--model", dumps["softmax"], "-", stdin=b"\n")
    # What is wrong with a line is said of it, and the others follow.
    bad = [b"absent\xff.png", b"zero\0byte.png", b"-", os.fsencode(tmp_path)]
    lines = b"\n".join([*bad, os.fsencode(photos[0])])
    status, out, err = label("--model", dumps["softmax"], "--top_k", 3, "-", stdin=lines)
    assert (status, out.splitlines()) == (1, expected[1:2])
    reasons = ["No such file", "null byte", "-: No such file", "Is a directory"]
    assert len(err.splitlines()) == len(reasons)
    assert all(map(str.__contains__, err.splitlines(), reasons)), err


def test_csv_has_a_header_and_names_as_they_are(label, dumps, photos, scores, tmp_path):
    out = tmp_path / "labels.csv"
    bad = tmp_path / 'a "bad", file.png'
    bad.write_text("no image")
    flags = ["--model", dumps["softmax"], "--csv", "--out", out]
    status, printed, err = label(*flags, photos[0].parent, bad)
    assert (status, printed) == (1, "")
    assert err.splitlines()[-1] == f"4 of 5 images: {out}"
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert list(rows[0]) == ["path", "class", "score", "class_2", "score_2"]
    for row, path, values in zip(rows, photos, scores["softmax"], strict=True):
        first, second = np.argsort(-values)[:2]
        assert row["path"] == str(path)
        assert (row["class"], row["class_2"]) == (CLASSES[first], CLASSES[second])
        assert float(row["score_2"]) == pytest.approx(values[second], abs=1e-6)


def test_json_is_whole_or_absent(label, dumps, photos, scores, tmp_path, monkeypatch):
    out = tmp_path / "labels.json"
    flags = ["--model", dumps["softmax"], "--json", "--top_k", 9, "--out", out, *photos]
    assert label(*flags)[0] == 0
    items = json.loads(out.read_text())
    assert [item["path"] for item in items] == [str(path) for path in photos]
    for item, values in zip(items, scores["softmax"], strict=True):
        found = [(item["class"], item["score"])]
        found += [(other["class"], other["score"]) for other in item["next_best"]]
        order = np.argsort(-values)
        assert [name for name, _ in found] == [CLASSES[i] for i in order]
        assert [score for _, score in found] == pytest.approx(values[order], abs=1e-6)
    out.unlink()
    monkeypatch.setattr("deployment.labels.as_json", lambda labels: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        label(*flags)
    assert list(tmp_path.iterdir()) == []


def test_unknown_comes_before_the_classes(label, dumps, photos, scores):
    best = np.sort(scores["softmax"].max(axis=1))
    between = (best[1] + best[2]) / 2
    flags = ["--model", dumps["softmax"], "--least", between, *photos]
    _, out, _ = label(*flags)
    _, longer, _ = label(*flags, "--top_k", 2)
    _, table, _ = label(*flags, "--csv")
    table = list(csv.DictReader(table.splitlines()))
    lines = [line.split("\t")[1:] for line in out.splitlines()]
    longer = [line.split("\t")[1:] for line in longer.splitlines()]
    for line, more, row, values in zip(lines, longer, table, scores["softmax"], strict=True):
        if values.max() < between:
            assert line == ["unknown"]
            assert more == ["unknown", *shown(values, 1)]
            assert (row["class"], row["score"]) == ("unknown", "")
            assert row["class_2"] == CLASSES[values.argmax()]
        else:
            assert line == shown(values, 1)
            assert more == shown(values, 2)
    assert lines.count(["unknown"]) == 2


def test_several_models_give_the_mean_of_their_scores(label, dumps, photos, scores):
    flags = [flag for name in ("softmax", "cosine") for flag in ("--model", dumps[name])]
    _, out, _ = label(*flags, "--top_k", 3, *photos)
    means = (scores["softmax"] + scores["cosine"]) / 2
    for line, values in zip(out.splitlines(), means, strict=True):
        assert line.split("\t")[1:] == shown(values, 3)
    for name, reason in {"pigs": "other classes", "similarities": "another kind of sc"}.items():
        with pytest.raises(UsageError, match=rf"{name}\.keras: has {reason}"):
            label("--model", dumps["softmax"], "--model", dumps[name], *photos)


def test_several_models_share_the_decoding(label, dumps, photos, monkeypatch):
    """Of views that differ each model gets its own."""
    decode, decoded = image_files.decoded_rgb, []

    def counted(path, **options):
        decoded.append(options["exif_rotation"])
        return decode(path, **options)

    monkeypatch.setattr(image_files, "decoded_rgb", counted)
    flags = [flag for name in ("softmax", "cosine") for flag in ("--model", dumps[name])]
    label(*flags, *photos)
    assert decoded == [True] * len(photos)
    decoded.clear()
    views = [View(24, 28, True), View(24, 28, False), View(20, 20, True)]
    seen = scoring.views_of_file(photos[1], views)
    assert sorted(decoded) == [False, True]
    for view, own in zip(views, seen, strict=True):
        np.testing.assert_array_equal(own, view.preprocess(photos[1]))
    assert not np.array_equal(seen[0], seen[1])  # the file lies on its side


def test_scores_are_calibrated_where_the_model_has_a_temperature(dumps, photos, scores):
    model = models.load_model(dumps["cosine"])
    seen = np.stack([model.preprocess(path) for path in photos])
    similarities = model.class_scores(model.predict(seen, verbose=0))
    powers = np.exp(np.asarray(similarities, np.float64) / 0.25)
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scores["cosine"], expected, rtol=1e-5)
    np.testing.assert_allclose(model.classify(seen)[1], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--csv --json a.png", "--csv and --json: the output has one form"),
        ("--csv --out labels.txt a.png", r"labels.txt: the file's name must end in .csv"),
        ("--least many a.png", "--least: 'many': expected a number"),
        ("- -", "-: standard input can be read once only"),
        ("absent.png", "absent.png: there is no such file or folder"),
    ],
)
def test_wrong_arguments(label, dumps, arguments, message):
    with pytest.raises(UsageError, match=message):
        label("--model", dumps["softmax"], *arguments.split())


def test_labels_that_no_file_format_has(tmp_path):
    """Of a foreign model, and of one that diverged."""
    names = ["half \ud800", "b"]
    found = labels.best_labels(np.array([np.nan, np.nan]), names, 2, least=0.5)
    assert found[0] == labels.Label("unknown", None)
    found = labels.best_labels(np.array([np.nan, np.nan]), names, 2)
    assert labels.as_json(found)["score"] is None
    path = os.fsdecode(b"\xff.png")
    with predict.opened(tmp_path / "a.csv") as file:
        labels.write_csv([(path, found)], file, 2)
    assert b"\xff.png,half \\ud800,nan,b,nan\n" in (tmp_path / "a.csv").read_bytes()
    with predict.opened(tmp_path / "a.json") as file:
        labels.write_json([(path, found)], file)
    [item] = json.loads((tmp_path / "a.json").read_text())
    assert item["path"] == path
