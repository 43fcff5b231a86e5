import re

import numpy as np
import pytest

from .programs import ROOT, Program

SCRIPT = ROOT / "evaluate_retrieval.py"


@pytest.fixture
def run(tmp_path):
    """Runs the script in a folder with a few files, as a user does."""
    (tmp_path / "tree.txt").write_text("root\n    pair\n        4: a\n        9: b\n    2: c\n")
    (tmp_path / "is_a.txt").write_text("a pair\nb pair\npair root\nc root\n")

    def run(*args):
        program = Program(SCRIPT, *args, directory=tmp_path)
        program.communicate()
        return program

    return run


def dump(path, ids=(2, 4, 9), **changes):
    arrays = {
        "features": np.array([[0, 1], [0, 2], [8, 0], [9, 0], [10, 0]], np.float32),
        "labels": np.array([0, 0, 1, 2, 1]),
        "class_names": np.array(["c", "a", "b"]),
        "class_ids": np.array(ids),
    }
    np.savez(path, **(arrays | changes))


def test_prints_the_scores(run, tmp_path):
    dump(tmp_path / "f.npz")
    done = run("--features", "f.npz", "--hierarchy", "tree.txt")
    assert done.returncode == 0, done.stderr
    scores = dict(line.rsplit(": ", 1) for line in done.stdout.splitlines())
    # Ranked by distance the relevant image is first for the two of class 2, and second for the two
    # of class 4; that of class 9 is alone.
    assert scores["mAP"] == f"{(1 + 1 + 1 / 2 + 1 / 2) / 4:.4f}"
    # At one image: right twice, the sister (similarity ½) twice where a twin exists, and for class
    # 9 a sister, the best there is.
    assert scores["HP@1 (LCS height)"] == f"{(1 + 1 + 1 / 2 + 1 / 2 + 1) / 5:.4f}"
    assert set(scores) == {"mAP"} | {
        f"{score} ({name})"
        for name in ("LCS height", "WUP")
        for score in ("HP@1", "HP@10", "HP@50", "HP@100", "HP@250", "mAHP@250")
    }


def test_several_dumps_side_by_side(run, tmp_path):
    """Ranked lists of class 2 find the twin first, or last of four; class 4 the twin second."""
    dump(tmp_path / "f.npz")
    features = np.array([[0, 1], [99, 0], [8, 0], [9, 0], [10, 0]], np.float32)
    dump(tmp_path / "g.npz", features=features)
    flags = ["--hierarchy", "tree.txt", "--features", "f.npz", "--features", "g.npz"]
    flags += ["--label", "good", "--label", "worse", "--clip_ahp", "3"]
    done = run(*flags, "--csv", "p.csv", "--plot", "p.svg")
    assert done.returncode == 0, done.stderr
    header, *lines = done.stdout.splitlines()
    assert header.split() == ["good", "worse"]
    table = {
        name: values.split() for name, values in (re.split(r"  +", s, maxsplit=1) for s in lines)
    }
    assert table["mAP"] == ["0.7500", f"{(1 / 4 + 1 / 4 + 1 / 2 + 1 / 2) / 4:.4f}"]
    rows = [line.split(",") for line in (tmp_path / "p.csv").read_text().splitlines()]
    assert rows[0][:3] == ["k", "good (LCS height)", "good (WUP)"]
    assert [row[0] for row in rows[1:]] == ["1", "2", "3", "4"]
    curve = [float(row[1]) for row in rows[1:]]
    assert curve[0] == pytest.approx(0.8)
    # The trapezoidal rule, over k from 1 to 3.
    area = (curve[0] / 2 + curve[1] + curve[2] / 2) / 2
    assert table["mAHP@3 (LCS height)"][0] == f"{area:.4f}"
    assert (tmp_path / "p.svg").read_text().rstrip().endswith("</svg>")
    done = run(*flags, "--label", "third")
    assert done.returncode == 2
    assert "--label: there are 3 for 2 times --features" in done.stderr


def test_string_ids_and_child_parent_lines(run, tmp_path):
    dump(tmp_path / "f.npz")
    dump(tmp_path / "s.npz", ids=("c", "a", "b"))
    done = run("--features", "f.npz", "--hierarchy", "tree.txt")
    strings = run("--features", "s.npz", "--hierarchy", "is_a.txt", "--is_a", "--str_ids")
    assert strings.returncode == 0, strings.stderr
    assert strings.stdout == done.stdout


def test_norm_ranks_by_angle(run, tmp_path):
    features = np.array([[1, 0], [9, 0.1], [2, 2], [3, 3], [4, 4]], np.float32)
    dump(tmp_path / "f.npz", features=features, labels=np.array([0, 0, 1, 1, 1]))
    done = run("--features", "f.npz", "--hierarchy", "tree.txt", "--norm")
    assert "mAP: 1.0000" in done.stdout
    done = run("--features", "f.npz", "--hierarchy", "tree.txt")
    assert "mAP: 1.0000" not in done.stdout


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.zeros(5, np.float32)}, "expected features (N, D) and one label"),
        ({"features": np.zeros((4, 2), np.float32)}, "expected features (N, D) and one label"),
        ({"labels": np.zeros(5)}, "expected integer labels"),
        ({"labels": np.array([0, 1, 2, 3, 0])}, "labels beyond its 3 classes"),
        ({"labels": np.array([0, 1, -1, 0, 0])}, "labels beyond its 3 classes"),
        ({"class_ids": np.array([2, 4, 77])}, "tree.txt: not in the hierarchy: 77"),
        ({"class_ids": np.array(["2", "4", "9"])}, "mind --str_ids"),
        ({"features": np.full((5, 2), np.nan, np.float32)}, "f.npz: the features have values"),
        ({"labels": np.array([{}] * 5, object)}, "f.npz: damaged or not an .npz of plain arrays"),
    ],
)
def test_a_bad_dump_is_one_line_and_status_1(run, tmp_path, changes, message):
    dump(tmp_path / "f.npz", **changes)
    done = run("--features", "f.npz", "--hierarchy", "tree.txt")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def test_a_missing_file_is_a_usage_error(run, tmp_path):
    done = run("--features", "f.npz", "--hierarchy", "tree.txt")
    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        ["evaluate_retrieval.py: error: --features f.npz: there is no such file"],
    )
