import pickle

import numpy as np
import pytest

from embeddings import load_embedding

from .programs import ROOT, Program

SCRIPT = ROOT / "compute_class_embedding.py"
TREE = "root\n    pair\n        4: first of two\n        9: second of two\n    2: alone\n"
PAIRS = "100 101\n100 2\n101 4\n101 9\n"


@pytest.fixture
def run(tmp_path):
    """Runs the script in a folder with a few files, as a user does."""
    (tmp_path / "tree.txt").write_text(TREE)
    (tmp_path / "pairs.txt").write_text(PAIRS)
    (tmp_path / "is_a.txt").write_text("101 100\n2 100\n4 101\n9 101\n")
    (tmp_path / "classes.txt").write_text("9 nine\n\n2 two words\n4\n")

    def run(*args):
        program = Program(SCRIPT, *args, directory=tmp_path)
        program.communicate()
        return program

    return run


def test_writes_an_embedding_and_its_deviation(run, tmp_path):
    done = run("--hierarchy", "tree.txt", "--out", "e.npz")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("unitsphere: 3 classes, 3 dimensions; deviation from the target")
    embedding = load_embedding(tmp_path / "e.npz")
    assert embedding.class_ids == [2, 4, 9]
    assert embedding.class_names == ["alone", "first of two", "second of two"]
    np.testing.assert_allclose(
        embedding.vectors @ embedding.vectors.T,
        [[1, 0, 0], [0, 1, 0.5], [0, 0.5, 1]],
        atol=1e-15,
    )


def test_all_forms_of_a_hierarchy_give_the_same_vectors(run, tmp_path):
    for name, args in {
        "tree": ["tree.txt"],
        "pairs": ["pairs.txt"],
        "is_a": ["is_a.txt", "--is_a"],
        "strings": ["pairs.txt", "--str_ids"],
    }.items():
        done = run("--hierarchy", *args, "--out", f"{name}.npz")
        assert done.returncode == 0, done.stderr
    loaded = {path.stem: load_embedding(path) for path in tmp_path.glob("*.npz")}
    for embedding in loaded.values():
        np.testing.assert_array_equal(embedding.vectors, loaded["tree"].vectors)
    assert loaded["strings"].class_ids == ["2", "4", "9"]
    assert loaded["pairs"].hierarchy_digest == loaded["is_a"].hierarchy_digest


def test_a_class_list_sets_order_and_names(run, tmp_path):
    done = run("--hierarchy", "pairs.txt", "--class_list", "classes.txt", "--out", "e.npz")
    assert done.returncode == 0, done.stderr
    embedding = load_embedding(tmp_path / "e.npz")
    assert embedding.class_ids == [9, 2, 4]
    assert embedding.class_names == ["nine", "two words", "4"]


def test_methods_and_their_options(run, tmp_path):
    done = run("--hierarchy", "tree.txt", "--method", "approx_sim", "--num_dim", "2", "--norm",
               "--out", "e.npz")  # fmt: skip
    assert done.returncode == 0, done.stderr
    embedding = load_embedding(tmp_path / "e.npz")
    assert (embedding.method, embedding.vectors.shape) == ("approx_sim", (3, 2))
    np.testing.assert_allclose(np.linalg.norm(embedding.vectors, axis=1), 1)


def test_converts_the_originals_pickle(run, tmp_path):
    content = {"embedding": np.eye(2), "ind2label": [7, 5], "label2ind": {7: 0, 5: 1}}
    (tmp_path / "old.pickle").write_bytes(pickle.dumps(content))
    done = run("--from_pickle", "old.pickle", "--out", "new.npz")
    assert done.returncode == 0, done.stderr
    embedding = load_embedding(tmp_path / "new.npz")
    assert embedding.class_ids == [7, 5]
    np.testing.assert_array_equal(embedding.vectors, np.eye(2))


def test_shows_and_plots(run, tmp_path):
    done = run("--hierarchy", "tree.txt", "--show", "--plot", "tree.svg")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:3] == ["root", "├── pair", "│   ├── 4: first of two"]
    assert "second of two" in (tmp_path / "tree.svg").read_text()


def test_makes_a_tree_from_wordnet(run, tmp_path):
    (tmp_path / "index.noun").write_text(
        "cat n 1 1 @ 1 0 00000080  \nclaw n 1 1 @ 1 0 00000160  \nthing n 1 0 1 0 00000000  \n"
    )
    (tmp_path / "data.noun").write_text(
        f"{'00000000 03 n 01 thing 0 000 | all':<79}\n"
        f"{'00000080 03 n 01 cat 0 001 @ 00000000 n 0000 | meows':<79}\n"
        f"{'00000160 03 n 01 claw 0 001 @ 00000000 n 0000 | scratches':<79}\n"
    )
    (tmp_path / "nouns.txt").write_text("3 cat\n5 tiger cat\n8 claw\n")
    done = run("--wordnet", ".", "--class_list", "nouns.txt", "--out", "tree.txt")
    assert done.returncode == 0, done.stderr
    done = run("--hierarchy", "tree.txt", "--out", "e.npz")
    assert done.returncode == 0, done.stderr
    embedding = load_embedding(tmp_path / "e.npz")
    assert embedding.class_ids == [3, 5, 8]
    assert embedding.class_names == ["cat", "tiger", "claw"]
    np.testing.assert_allclose(
        embedding.vectors @ embedding.vectors.T,
        [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]],
        atol=1e-15,
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--hierarchy", "none.txt", "--out", "e.npz"], "none.txt: there is no such file"),
        (["--hierarchy", "tree.txt"], "nothing to do: give --out, --plot or --show"),
        (["--hierarchy", "tree.txt", "--out", "e.pickle"], "must end in .npz"),
        (["--hierarchy", "tree.txt", "--out", "no/e.npz"], "there is no directory"),
        (["--hierarchy", "tree.txt", "--plot", "t.gif"], "must end in .svg or .png or .pdf"),
        (["--hierarchy", "tree.txt", "--out", "e.npz", "--num_dim", "2"], "--num_dim: unitsphere"),
        (
            ["--hierarchy", "tree.txt", "--out", "e.npz", "--method", "mds", "--num_dim", "0"],
            "--num_dim 0: expected at least 1",
        ),
        (["--wordnet", ".", "--show"], "--wordnet needs --class_list"),
        (["--from_pickle", "tree.txt", "--show"], "--from_pickle holds no hierarchy"),
        (
            ["--out", "e.npz"],
            "one of the arguments --hierarchy --from_pickle --wordnet is required",
        ),
    ],
)
def test_a_mistake_in_the_arguments_is_one_line_and_status_2(run, args, message):
    done = run(*args)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--hierarchy", "is_a.txt"], "is_a.txt: the hierarchy has 3 roots"),
        (["--hierarchy", "classes.txt"], "classes.txt: line 1: the id 'nine' is not an integer"),
        (["--hierarchy", "pairs.txt", "--class_list", "bad.txt"], "no class of the hierarchy: '1'"),
        (
            ["--hierarchy", "pairs.txt", "--class_list", "text.txt"],
            "'root'; its ids are like 9, 4, 2 (its ids are integers; give --str_ids",
        ),
        (["--hierarchy", "mixed.txt"], "leaf 'b' has no id, but others have"),
        (["--from_pickle", "tree.txt"], "tree.txt: damaged or not a pickle"),
        (["--wordnet", ".", "--class_list", "classes.txt"], "index.noun is missing"),
    ],
)
def test_a_bad_file_is_one_line_and_status_1_and_writes_nothing(run, tmp_path, args, message):
    (tmp_path / "bad.txt").write_text("1\n")
    (tmp_path / "text.txt").write_text("root\n")
    (tmp_path / "mixed.txt").write_text("a\n    b\n    3: c\n")
    done = run(*args, "--out", "e.npz")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert not (tmp_path / "e.npz").exists()
