import pickle
import zipfile

import numpy as np
import pytest

import embeddings
from embeddings import Embedding, load_embedding, save_embedding
from utils import UsageError, UserError

VECTORS = np.array([[1, 0], [0.6, 0.8], [0, 1]])
TREE = "root\n    pair\n        4: a\n        9: b\n    2: c\n"


@pytest.fixture
def npz(tmp_path):
    path = tmp_path / "e.npz"
    save_embedding(path, Embedding(VECTORS, [5, 3, 8], ["five", "three", "eight"], "mds", "abc"))
    return path


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def write_pickle(path, content):
    path.write_bytes(pickle.dumps(content, protocol=3))
    return path


def test_one_hot_has_one_orthonormal_vector_per_class():
    np.testing.assert_array_equal(
        embeddings.class_embeddings("onehot", [7, 3, 5]), [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    )


@pytest.mark.parametrize("spec", ["one-hot", "", "e.txt", "hierarchy", "/"])
def test_an_unknown_form_says_what_is_accepted(spec):
    with pytest.raises(UsageError, match=r"expected onehot, a file .*, or hierarchy:FILE"):
        embeddings.check_embedding(spec)


@pytest.mark.parametrize("spec", ["none.npz", "none.pickle", "hierarchy:none.txt", "hierarchy:"])
def test_a_missing_file_is_a_usage_error(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"--embedding {spec}: no such file"):
        embeddings.check_embedding(spec)


def test_rows_are_found_by_id_whatever_the_order_of_the_file(npz, capsys):
    np.testing.assert_array_equal(
        embeddings.class_embeddings(str(npz), [3, 5, 8]), VECTORS[[1, 0, 2]]
    )
    assert capsys.readouterr().err == ""


def test_ids_are_compared_as_they_are_written(npz):
    np.testing.assert_array_equal(
        embeddings.class_embeddings(str(npz), ["8", "3", "5"]), VECTORS[[2, 1, 0]]
    )
    np.testing.assert_array_equal(
        embeddings.class_embeddings(str(npz), np.array([8, 3, 5])), VECTORS[[2, 1, 0]]
    )


def test_missing_classes_are_named(npz):
    with pytest.raises(
        UserError, match=r"e\.npz: has no embedding for 2 of the .* 3 classes: 4 \(four\), 6 \(six"
    ):
        embeddings.class_embeddings(str(npz), [4, 5, 6], ["four", "five", "six"])


def test_superfluous_classes_are_named_and_left_out(npz, capsys):
    np.testing.assert_array_equal(embeddings.class_embeddings(str(npz), [8]), VECTORS[[2]])
    assert "2 classes are not in the data set and left out: 5, 3" in capsys.readouterr().err


def test_a_hierarchy_is_computed_on_the_fly(tmp_path):
    path = tmp_path / "h.txt"
    path.write_text(TREE)
    vectors = embeddings.class_embeddings(f"hierarchy:{path}", [9, 2, 4])
    np.testing.assert_allclose(
        vectors @ vectors.T, [[1, 0, 0.5], [0, 1, 0], [0.5, 0, 1]], atol=1e-15
    )
    strings = embeddings.class_embeddings(f"hierarchy:{path}", ["9", "2", "4"])
    np.testing.assert_array_equal(strings, vectors)
    with pytest.raises(UserError, match=r"h\.txt: not in the hierarchy: 77"):
        embeddings.class_embeddings(f"hierarchy:{path}", [9, 77])


def test_a_hierarchy_of_child_parent_lines_is_understood(tmp_path):
    path = tmp_path / "h.txt"
    path.write_text("1 0\n2 0\n3 1\n4 1\n")
    vectors = embeddings.class_embeddings(f"hierarchy:{path}", [3, 4, 2])
    np.testing.assert_allclose(
        vectors @ vectors.T, [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]], atol=1e-15
    )


@pytest.mark.parametrize("ids", [[5, 3, 8], ["x", "ü", "z z"]])
def test_a_file_gives_back_what_was_saved(tmp_path, ids):
    saved = Embedding(VECTORS, ids, ["a", "b", "ç"], "unitsphere", "0123")
    save_embedding(tmp_path / "e.npz", saved)
    loaded = load_embedding(tmp_path / "e.npz")
    np.testing.assert_array_equal(loaded.vectors, VECTORS)
    assert loaded.class_ids == ids
    assert loaded.class_names == ["a", "b", "ç"]
    assert (loaded.method, loaded.hierarchy_digest) == ("unitsphere", "0123")


def test_the_bytes_of_a_file_do_not_depend_on_the_time(npz):
    with zipfile.ZipFile(npz) as archive:
        for member in archive.infolist():
            assert member.date_time == (1980, 1, 1, 0, 0, 0)
            assert member.compress_type == zipfile.ZIP_STORED


@pytest.mark.parametrize("key", [str, str.encode], ids=["text keys", "bytes keys of Python 2"])
def test_the_originals_pickles_are_read(tmp_path, key):
    content = {
        key("embedding"): VECTORS,
        key("ind2label"): [5, np.int64(3), 8],
        key("label2ind"): {5: 0, 3: 1, 8: 2},
    }
    path = write_pickle(tmp_path / "e.pickle", content)
    assert load_embedding(path).class_ids == [5, 3, 8]
    np.testing.assert_array_equal(
        embeddings.class_embeddings(str(path), [8, 5, 3]), VECTORS[[2, 0, 1]]
    )


def test_a_hostile_pickle_is_refused_and_does_nothing(tmp_path):
    mark = tmp_path / "mark"
    content = {"embedding": VECTORS, "ind2label": [5, 3, 8], "label2ind": Evil(mark)}
    path = write_pickle(tmp_path / "e.pickle", content)
    with pytest.raises(UserError, match=r"e\.pickle: refused"):
        embeddings.class_embeddings(str(path), [5, 3, 8])
    assert not mark.exists()


def test_a_hostile_npz_is_refused_and_does_nothing(tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "e.npz"
    np.savez(path, embedding=np.array([Evil(mark)], object), class_ids=np.arange(1))
    with pytest.raises(UserError, match=r"e\.npz: damaged or not an \.npz of plain arrays"):
        load_embedding(path)
    path.write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(UserError, match=r"e\.npz: damaged"):
        load_embedding(path)
    assert not mark.exists()


NO_EMBEDDING = "expected a matrix .* all integers or all strings"
# A few bytes in a pickle, and 10^30 numbers where anything walks through it.
NESTED = [0] * 10
for _ in range(29):
    NESTED = [NESTED] * 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "expected a dictionary"),
        ({"embedding": VECTORS}, NO_EMBEDDING),
        ({"embedding": VECTORS, "ind2label": 5}, NO_EMBEDDING),
        ({"embedding": VECTORS, "ind2label": [1, 2]}, "one class id for each row"),
        ({"embedding": VECTORS, "ind2label": [1, 2, 2]}, "class ids occur twice: 2"),
        ({"embedding": VECTORS, "ind2label": [1, 2, "3"]}, NO_EMBEDDING),
        ({"embedding": VECTORS, "ind2label": [1, 2, None]}, NO_EMBEDDING),
        ({"embedding": [[1.0]], "ind2label": [1]}, NO_EMBEDDING),
        ({"embedding": NESTED, "ind2label": [1] * 10}, NO_EMBEDDING),
        ({"embedding": VECTORS, "ind2label": [NESTED] * 3}, NO_EMBEDDING),
        ({"embedding": VECTORS[0], "ind2label": [1, 2]}, "no matrix of numbers"),
        ({"embedding": VECTORS[:2, :0], "ind2label": [1, 2]}, "no matrix of numbers"),
        ({"embedding": VECTORS * np.nan, "ind2label": [1, 2, 3]}, "not finite"),
        ({"embedding": VECTORS[:0], "ind2label": []}, "one class id for each row"),
    ],
)
def test_a_pickle_that_is_no_embedding_is_refused(tmp_path, content, message):
    path = write_pickle(tmp_path / "e.pickle", content)
    with pytest.raises(UserError, match=rf"e\.pickle: .*{message}"):
        load_embedding(path)


def test_an_npz_that_is_no_embedding_is_refused(tmp_path, npz):
    np.savez(tmp_path / "other.npz", x=VECTORS)
    with pytest.raises(UserError, match=r"other\.npz: .*has no array embedding or class_ids"):
        load_embedding(tmp_path / "other.npz")
    np.savez(tmp_path / "names.npz", embedding=VECTORS, class_ids=[1, 2, 3], class_names=["a"])
    with pytest.raises(UserError, match="one class name for each class id"):
        load_embedding(tmp_path / "names.npz")
    npz.write_bytes(npz.read_bytes()[:200])
    with pytest.raises(UserError, match=r"e\.npz: damaged"):
        load_embedding(npz)
    with pytest.raises(UserError, match="No such file"):
        load_embedding(tmp_path / "none.npz")
