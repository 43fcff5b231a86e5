import csv
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import reproduce_paper
from experiments import paper, paper_runs, processes
from training.flags.arguments import training_parser
from utils import UsageError

PRETENDED = [sys.executable, str(Path(__file__).with_name("pretended_training.py"))]


@pytest.fixture
def reproduce(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(processes, "_PAUSE", 0.02)

    def run(*arguments, program=PRETENDED):
        argv = ["reproduce_paper.py", *arguments, "--output", str(tmp_path)]
        if "--" in arguments:
            where = arguments.index("--")
            argv[1:] = [*arguments[:where], "--output", str(tmp_path), *arguments[where:]]
        monkeypatch.setattr("sys.argv", argv)
        reproduce_paper.main(program)
        return capsys.readouterr().out

    run.directory = tmp_path
    return run


@pytest.fixture
def flowers(tmp_path_factory):
    """The files that make Flowers look as if it were there."""
    root = tmp_path_factory.mktemp("data") / "flowers"
    (root / "jpg").mkdir(parents=True)
    for name in ("imagelabels.mat", "setid.mat"):
        (root / name).touch()
    return root


@pytest.mark.parametrize(
    ("cells", "count", "published"),
    [
        (paper.table_2(), 30, 30),
        (paper.table_3(), 8, 8),
        (paper.figure_3(), 42, 0),
        (paper.figure_3_small(), 15, 0),
    ],
)
def test_the_cells_are_trainings(cells, count, published):
    assert len(cells) == count
    assert sum(cell.published is not None for cell in cells) == published
    # Another training is another directory.
    assert len({cell.name for cell in cells}) == len({cell.argv for cell in cells}) == count
    for cell in cells:
        args = training_parser().parse_args(cell.argv)
        assert args.dataset.startswith(cell.dataset)
        assert (args.embedding is None) == (cell.loss in ("cross_entropy", "label_smoothing"))
        assert (args.cls_weight > 0) == cell.loss.startswith("cosine_cross")
        assert bool(args.label_smoothing) == (cell.loss == "label_smoothing")
        if args.embedding not in (None, "onehot", "NAB"):
            assert (reproduce_paper.ROOT / args.embedding).exists()


def test_known_cells():
    cells = {(cell.loss, cell.dataset): cell for cell in paper.table_2()}
    cell = cells["cosine", "MIT67Scenes"]
    assert (cell.rate, cell.published) == ("2.5", 51.5)
    cell = cells["cosine_cross_entropy_semantic", "CIFAR-100"]
    assert (cell.rate, cell.published) == ("0.1", 76.7)
    assert "resnet-110-wfc" in cell.argv
    # Table 3 begins with trainings of table 2.
    assert paper.table_3()[0].argv == cells["cosine", "CUB"].argv
    assert paper.table_3()[0].name == cells["cosine", "CUB"].name


def test_the_published_protocol_prints_our_number_beside_the_papers(reproduce, flowers):
    command = ["table2", "--data_root", f"Flowers={flowers}", "--only", "Flowers", "CUB"]
    out = reproduce(*command, "--seeds", "2", "--losses", "cosine", "cross_entropy")
    # Of pretended trainings with the published rates 0.5 and 1, best epoch.
    assert re.search(r"^cosine +96\.1 ± 0\.0 \(n=2\) \| paper 71\.1$", out, re.M)
    assert re.search(r"^cross entropy +failed \| paper 67\.3$|51\.1 ± 0\.0", out, re.M)
    assert "selected on the test images (the paper's protocol)" in out
    assert "not there, so left out: CUB" in out
    starts = sorted(reproduce.directory.rglob("starts.txt"))
    assert len(starts) == 4
    reproduce(*command, "--seeds", "2", "--losses", "cosine")
    assert [path.read_text() for path in starts] == ["started\n"] * 4
    with pytest.raises(UsageError, match=r"its trainings had no flags after --"):
        reproduce(*command, "--", "--epochs", "3")


def test_the_small_figure_chooses_rates_on_validation_images(reproduce):
    out = reproduce("figure3", "--scale", "small", "--losses", "cosine", "--jobs", "4")
    assert "selected on the validation images" in out
    assert "25 of 25 trainings are finished (100 %)" in out
    with open(reproduce.directory / "figure3_small.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["images per class"] for row in rows] == ["2", "5", "10", "20", "50"]
    # Of 0.5, 0.1 and 0.02 the pretended training likes 0.5 and 0.1 equally.
    assert {row["learning rate"] for row in rows} <= {"0.5", "0.1"}
    # Accuracies of the last epochs of five seeds: 0.96 and 0, 1, …, 4 points more.
    assert float(rows[0]["mean"]) == pytest.approx(98)
    assert float(rows[0]["sd"]) == pytest.approx(np.std(range(5), ddof=1))
    assert all(row["n"] == "5" for row in rows)
    for path in reproduce.directory.glob("runs/*/*/all/*/*/command.txt"):
        assert "--validation_fraction" not in path.read_text()
    assert "prefers-color-scheme" in (reproduce.directory / "figure3_small.svg").read_text()


def test_a_rate_that_fails_is_not_chosen(reproduce, flowers):
    command = ["table2", "--data_root", str(flowers.parent), "--losses", "cosine", "--tune"]
    out = reproduce(*command, "--jobs", "4")
    # Of the paper's grid 2.5 fails in the pretended training.
    assert "96.1 (n=1) | paper 71.1" in out
    assert "selected on the test images, of 2.5, 1, 0.5" in out
    assert len(list(reproduce.directory.rglob("failed.txt"))) == 1


def test_a_dry_run_only_prints_commands(reproduce, flowers):
    out = reproduce("table2", "--data_root", str(flowers.parent), "--dry_run", "--jobs", "1")
    lines = out.splitlines()
    assert len(lines) == 4
    for line in lines:
        assert line.startswith("python learn_classifier.py --dataset Flowers")
        assert training_parser().parse_args(line.split()[2:]).data_root == str(flowers)
    assert not (reproduce.directory / "runs").exists()


def test_what_cannot_work_is_refused(reproduce):
    for arguments, message in (
        (["table2"], "none of CUB, NAB-large, Cars, Flowers"),
        (["table2", "--scale", "small"], "is a figure3, not a table2"),
        (["table2", "--validation_fraction", "0.2"], "which --tune asks for"),
        (["table3", "--only", "Cars"], "leave nothing of it"),
        (["figure3", "--scale", "small", "--", "--epochs", "0"], "--epochs: 0: expected"),
    ):
        with pytest.raises(UsageError, match=message):
            reproduce(*arguments)


def test_the_surfaces_of_figure_1():
    axis, losses = paper_runs.surfaces(61)
    x, y = np.argmin(abs(axis - 2)), np.argmin(abs(axis + 1))
    features = np.array([axis[x], axis[y]])
    probability = np.exp(features[0]) / np.exp(features).sum()
    assert losses["cross entropy"][y, x] == pytest.approx(-np.log(probability))
    assert losses["squared distance"][y, x] == pytest.approx(np.sum((features - [1, 0]) ** 2))
    assert losses["cosine loss"][y, x] == pytest.approx(1 - 2 / np.sqrt(5))


def test_tables_and_figures_that_need_no_training(reproduce, monkeypatch):
    monkeypatch.setattr(paper, "TAXONOMIES", paper.TAXONOMIES[:2])  # drawing takes seconds
    reproduce("figure1")
    assert "</svg>" in (reproduce.directory / "figure1.svg").read_text()
    out = reproduce("figure2")
    assert out.startswith("flat: 4 levels, ")
    assert "</svg>" in (reproduce.directory / "figure2_flat.svg").read_text()
    with pytest.raises(UsageError, match="none of CUB"):
        reproduce("table1")
