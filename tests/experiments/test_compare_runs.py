import csv
import json

import numpy as np
import pytest

import compare_runs
from experiments import tables
from utils import UsageError, UserError

from .small_runs import write_run

FIRST = [0.80, 0.81, 0.82, 0.79, 0.80, 0.81]
SECOND = [0.84, 0.86, 0.85, 0.84, 0.83, 0.86]


def compare(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["compare_runs.py", *map(str, arguments)])
    compare_runs.main()
    return capsys.readouterr().out


@pytest.fixture
def two_groups(tmp_path):
    for name, scores in (("a", FIRST), ("b", SECOND)):
        for seed, score in enumerate(scores):
            wrong = range(4) if name == "a" else [10]
            directory = tmp_path / name / str(seed)
            write_run(directory, score, seed=seed, wrong=wrong, loss=name, epochs=seed + 2)
    return tmp_path


def test_a_difference_that_is_there_is_shown(two_groups, monkeypatch, capsys):
    files = [two_groups / f"out.{suffix}" for suffix in ("csv", "json", "tex", "svg")]
    flags = ["--csv", files[0], "--json", files[1], "--latex", files[2], "--plot", files[3]]
    globbed = sorted((two_groups / "a").iterdir())
    out = compare(monkeypatch, capsys, *globbed, "--vs", two_groups / "b", *flags)
    assert "loss=b is better than loss=a: +4.17 points" in out
    [comparison] = json.loads(files[1].read_text())["comparisons"]
    differences = np.subtract(SECOND, FIRST)
    assert comparison["difference"] == pytest.approx(np.mean(differences))
    assert comparison["sd"] == pytest.approx(np.std(differences, ddof=1))
    assert comparison["p"] == comparison["p_holm"] == 2 / 2**6
    single = comparison["mcnemar"][0]
    assert (single["only_first"], single["only_second"], single["images"]) == (1, 4, 20)
    assert single["p"] == pytest.approx(2 * (1 + 5) / 2**5)
    assert single["p_holm"] == 1
    with open(files[0], newline="") as file:
        [row] = csv.DictReader(file)
    assert float(row["low"]) == comparison["low"]
    assert files[2].read_text().count(r"\begin{tabular}") == 2
    svg = files[3].read_text()
    assert "prefers-color-scheme: dark" in svg
    assert svg.endswith("</svg>\n")


def test_three_seeds_cannot_show_it(two_groups, monkeypatch, capsys):
    runs = [[two_groups / name / str(seed) for seed in range(3)] for name in "ab"]
    out = compare(monkeypatch, capsys, *runs[0], "--vs", *runs[1])
    assert "n = 3 cannot show it" in out
    assert "smallest p is 0.25; run at least 6 seeds" in out
    # Five can neither, and of three comparisons that share the level six cannot.
    write_run(two_groups / "c" / "0", 0.5, loss="c")
    out = compare(monkeypatch, capsys, two_groups)
    assert "3 comparisons" not in out  # a group of one run is not tested
    write_run(two_groups / "c" / "1", 0.5, seed=1, loss="c")
    out = compare(monkeypatch, capsys, two_groups)
    assert "loss=b against loss=a: n = 6 cannot show it" in out
    assert "and 3 comparisons share the level of 0.05" in out
    assert "run at least 7 seeds" in out


def test_unequal_seeds_are_named(two_groups, monkeypatch, capsys):
    first = [two_groups / "a" / str(seed) for seed in range(3)]
    second = [two_groups / "b" / str(seed) for seed in range(3, 6)]
    out = compare(monkeypatch, capsys, *first, "--vs", *second)
    assert "no seed in common" in out
    assert (
        "note: not paired: seed 0, split_seed 0; seed 1, split_seed 1; seed 2, split_seed 2" in out
    )
    out = compare(monkeypatch, capsys, *first, "--vs", *second, "--unpaired")
    assert "no difference is shown: +3.33 points" in out
    assert "p = 0.1" in out


def test_groups_are_of_everything_but_the_seed(tmp_path, monkeypatch, capsys):
    for seed in range(2):
        for rate in (0.1, 0.5):
            directory = tmp_path / f"{seed}-{rate}"
            write_run(directory, rate, seed=seed, sgdr_max_lr=rate, cache="none")
    write_run(tmp_path / "other", 0.9, dataset="CUB", sgdr_max_lr=0.1)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "history.csv").write_text("epoch,val_acc\n1,0.5\n")
    out = compare(monkeypatch, capsys, tmp_path)
    assert "dataset=digits sgdr_max_lr=0.1  2  10.00" in out
    assert "note: left out, as it is not finished" in out
    # Accuracies on other test images are not compared.
    assert out.count(" against ") == 1
    with pytest.raises(UsageError, match="seed 0 of one group; they differ in sgdr_max_lr: group"):
        compare(monkeypatch, capsys, tmp_path, "--by", "dataset")
    with pytest.raises(UsageError, match="--by nothing: no run has such an argument"):
        compare(monkeypatch, capsys, tmp_path, "--by", "nothing")


def test_what_was_selected_on_test_is_said(two_groups, monkeypatch, capsys):
    out = compare(monkeypatch, capsys, two_groups, "--metric", "best")
    assert "selected on the test images" in out
    assert "81.50" in out  # the mean of the best epochs
    with pytest.raises(UserError, match=r"has no score top5_acc of the test images, but loss, acc"):
        compare(monkeypatch, capsys, two_groups, "--metric", "top5_acc")


@pytest.mark.parametrize("name", ["result.json", "history.csv", "predictions.csv"])
def test_a_damaged_file_is_named(two_groups, monkeypatch, capsys, name):
    (two_groups / "a" / "0" / name).write_text('{"arguments": 5,\nx')
    with pytest.raises(UserError, match=f"a/0/{name}: "):
        compare(monkeypatch, capsys, two_groups, "--plot", two_groups / "x.svg")


def test_latex_escapes_what_it_obeys():
    latex = tables.latex([{"95 % interval": r"a_b\c&d", "p": None}])
    assert r"95 \% interval & p \\" in latex
    assert r"a\_b\textbackslash{}c\&d &  \\" in latex


def test_a_flag_that_older_runs_lack_had_its_default(tmp_path, monkeypatch, capsys):
    for name, more in (("old", {}), ("new", {"harmonic": "none"}), ("other", {"harmonic": "all"})):
        write_run(tmp_path / name, 0.8, seed=len(more), **more)
    groups = compare(monkeypatch, capsys, tmp_path / "old", tmp_path / "new")
    assert "harmonic" not in groups
    groups = compare(monkeypatch, capsys, tmp_path / "old", tmp_path / "other")
    assert "harmonic=all" in groups
