import pickle

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from PIL import Image

import datasets
from datasets.sources import files
from utils import UserError

from .conftest import cifar_batch, shared, write_pickle


def test_digits():
    from sklearn.datasets import load_digits

    official = load_digits()
    dataset = datasets.load_dataset("digits")
    assert (len(dataset.train), len(dataset.test)) == (1000, 797)
    assert dataset.class_names == [str(i) for i in range(10)]
    assert np.array_equal(dataset.train.labels, official.target[:1000])
    assert np.array_equal(dataset.test.labels, official.target[1000:])
    expected = official.images[1000:] * 255 / 16
    for channel in range(3):
        assert np.abs(dataset.test.images[..., channel] - expected).max() <= 0.5


def test_cifar_100(cifar_100):
    dataset = datasets.load_dataset("CIFAR-100", cifar_100)
    with open(cifar_100 / "train", "rb") as file:
        content = pickle.load(file)
    images = dataset.train.images
    assert images.shape == (200, 32, 32, 3)
    # Channel-first rows: red, green and blue planes of 32 x 32.
    assert images[7, 3, 5].tolist() == [
        content[b"data"][7, c * 1024 + 3 * 32 + 5] for c in range(3)
    ]
    assert dataset.train.labels.tolist() == content[b"fine_labels"]
    assert dataset.train.labels.dtype == np.int64
    assert dataset.class_ids == list(range(100))
    assert dataset.class_names[42] == "name42"
    flat = images.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(dataset.mean, flat.mean(0), rtol=1e-12)
    np.testing.assert_allclose(dataset.std, flat.std(0), rtol=1e-12)
    assert dataset.std_epsilon == 1e-7
    assert dataset.counts() == {
        "classes": 100, "train_images": 200, "train_images_per_class_min": 2,
        "train_images_per_class_max": 2, "train_repeats": 1, "test_images": 100,
        "skipped_images": 0,
    }  # fmt: skip


def test_halves_of_cifar_100(cifar_100):
    whole = datasets.load_dataset("CIFAR-100", cifar_100)
    first = datasets.load_dataset("CIFAR-100-a", cifar_100)
    second = datasets.load_dataset("CIFAR-100-b", cifar_100)
    renumbered = datasets.load_dataset("CIFAR-100-b-consec", cifar_100)
    assert first.class_ids == list(range(50))
    assert second.class_ids == list(range(50, 100))
    assert renumbered.class_ids == list(range(50))
    assert second.class_names == renumbered.class_names == [f"name{i}" for i in range(50, 100)]
    lower = whole.train.labels < 50
    assert np.array_equal(first.train.images, whole.train.images[lower])
    assert np.array_equal(second.train.images, whole.train.images[~lower])
    assert np.array_equal(second.train.labels, whole.train.labels[~lower] - 50)
    assert np.array_equal(renumbered.train.labels, second.train.labels)
    assert len(first.test) == len(second.test) == 50


def test_cifar_10_with_text_keys_and_without_names(cifar_10):
    dataset = datasets.load_dataset("cifar10", cifar_10.parent)
    assert (len(dataset.train), len(dataset.test)) == (50, 10)
    assert dataset.class_names == [str(i) for i in range(10)]
    batch = cifar_batch(range(10), "labels", 2)
    expected = batch[b"data"].reshape(10, 3, 32, 32).transpose(0, 2, 3, 1)
    assert np.array_equal(dataset.train.images[10:20], expected)


def test_arrays_are_resized_once(cifar_100):
    native = datasets.load_dataset("CIFAR-100", cifar_100)
    dataset = datasets.load_dataset("CIFAR-100", cifar_100, image_size=48)
    expected = Image.fromarray(native.test.images[5]).resize((48, 48), Image.Resampling.BILINEAR)
    assert np.array_equal(dataset.test.images[5], expected)
    assert dataset.image_size == 48


def broken(label_key="fine_labels", **changes):
    content = cifar_batch(range(100), label_key)
    content.update({key.encode(): value for key, value in changes.items()})
    return content


# A few bytes in a pickle, and 10^30 numbers where anything walks through it.
NESTED = [0] * 10
for _ in range(29):
    NESTED = [NESTED] * 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "expected a dictionary, found a list"),
        ({b"data": 1}, "has no array or list 'data'"),
        (broken(data=np.zeros((100, 100), np.uint8)), r"data should be uint8 \(n, 3072\)"),
        (broken(data=np.zeros((100, 3072))), r"data should be uint8"),
        (broken(fine_labels=list(range(99))), "should be 100 integers"),
        (broken(fine_labels=[0.5] * 100), "should be 100 integers"),
        (broken(fine_labels=[[1], [1, 2]]), "has no array or list 'fine_labels'"),
        (broken(data=[[1], [1, 2]]), "has no array or list 'data'"),
        (broken(data=NESTED), "has no array or list 'data'"),
        (broken(fine_labels=NESTED), "has no array or list 'fine_labels'"),
        (broken(fine_labels=[NESTED] * 100), "has no array or list 'fine_labels'"),
        (broken(fine_labels=list(range(1, 101))), "should be 0 to 99, are 1 to 100"),
    ],
)
def test_wrong_cifar_files(cifar_100, content, message):
    write_pickle(cifar_100 / "train", content)
    with pytest.raises(UserError, match=rf"cifar-100-python/train: .*{message}") as caught:
        datasets.load_dataset("CIFAR-100", cifar_100)
    assert "\n" not in str(caught.value)


def test_cifar_with_a_wrong_number_of_names(cifar_100):
    for names in ([b"a"], [NESTED] * 100):
        write_pickle(cifar_100 / "meta", {b"fine_label_names": names})
        with pytest.raises(UserError, match="meta: fine_label_names should be a list of 100 names"):
            datasets.load_dataset("CIFAR-100", cifar_100)


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_hostile_pickles_are_refused(cifar_100, tmp_path):
    write_pickle(cifar_100 / "train", {b"data": Hostile(tmp_path / "pwned")})
    with pytest.raises(UserError, match="train: refused"):
        datasets.load_dataset("CIFAR-100", cifar_100)
    assert not (tmp_path / "pwned").exists()


def test_flowers(flowers):
    dataset = datasets.load_dataset("Flowers", flowers, cache="none")
    names = [path.rsplit("_", 1)[1] for path in dataset.train.images]
    assert names == [f"{i:05}.jpg" for i in (1, 2, 3, 6, 5, 4)]
    assert dataset.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert dataset.test.labels.tolist() == [0, 1, 2]
    assert dataset.class_ids == [1, 2, 3]
    assert dataset.class_names == ["1", "2", "3"]
    assert (dataset.mean, dataset.std_epsilon) == ((110.7799141, 97.65648664, 75.32889973), 0)


def test_flowers_with_a_split_beyond_the_labels(flowers):
    splits = {"trnid": [[1]], "valid": [[10]], "tstid": [[7]]}
    scipy.io.savemat(flowers / "setid.mat", splits)
    with pytest.raises(UserError, match=r"setid\.mat: lists images 1 to 10, .* labels for 1 to 9"):
        datasets.load_dataset("Flowers", flowers)


def test_flowers_with_labels_that_are_no_integers(flowers):
    scipy.io.savemat(flowers / "imagelabels.mat", {"labels": [[1.5, 2]]})
    with pytest.raises(UserError, match=r"imagelabels\.mat: labels should be integers"):
        datasets.load_dataset("Flowers", flowers)
    scipy.io.savemat(flowers / "imagelabels.mat", {"labels": "abc"})
    with pytest.raises(UserError, match=r"imagelabels\.mat: labels should be integers"):
        datasets.load_dataset("Flowers", flowers)


def test_flowers_with_sparse_labels(flowers):
    labels = scipy.sparse.csc_matrix([[1.0, 2.0]])
    scipy.io.savemat(flowers / "imagelabels.mat", {"labels": labels})
    with pytest.raises(UserError, match=r"imagelabels\.mat: .*labels should be a plain array"):
        datasets.load_dataset("Flowers", flowers)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_flowers_with_labels_that_are_no_numbers(flowers, value):
    scipy.io.savemat(flowers / "imagelabels.mat", {"labels": [[1, value]]})
    with pytest.raises(UserError, match=r"imagelabels\.mat: labels should be integers"):
        datasets.load_dataset("Flowers", flowers)


def test_wrong_matlab_files(flowers):
    scipy.io.savemat(flowers / "setid.mat", {"other": [1]})
    with pytest.raises(UserError, match=r"setid\.mat: has no variable trnid"):
        datasets.load_dataset("Flowers", flowers)
    (flowers / "setid.mat").write_bytes(b"not a MATLAB file" * 20)
    with pytest.raises(UserError, match=r"setid\.mat: damaged or not a MATLAB file"):
        datasets.load_dataset("Flowers", flowers)


def test_subsets_are_balanced_nested_and_repeated():
    whole = datasets.load_dataset("digits")
    small = datasets.load_dataset("digits-sub5", split_seed=3)
    larger = datasets.load_dataset("digits-sub10", split_seed=3)
    other = datasets.load_dataset("digits-sub5", split_seed=4)
    assert np.bincount(small.train.labels).tolist() == [5] * 10
    assert np.bincount(larger.train.labels).tolist() == [10] * 10
    as_set = lambda d: {image.tobytes() for image in d.train.images}  # noqa: E731
    assert as_set(small) < as_set(larger) < as_set(whole)
    assert as_set(small) != as_set(other)
    assert (small.train_repeats, larger.train_repeats) == (20, 10)
    assert np.array_equal(small.test.images, whole.test.images)
    assert small.name == "digits-sub5"
    pixels = small.train.images.reshape(-1, 3)
    np.testing.assert_allclose(small.mean, pixels.mean(0, np.float64), rtol=1e-12)


def test_small_classes_are_used_whole_and_named_once(flowers, caplog):
    dataset = datasets.load_dataset("Flowers-sub9", flowers, cache="none")
    assert len(dataset.train) == 6
    assert dataset.train_repeats == 1
    small = [record for record in caplog.records if "as few as" in record.getMessage()]
    assert len(small) == 1
    assert "as few as 2 training images" in small[0].getMessage()


def test_other_numbers_of_classes_than_the_official_are_told(flowers, caplog, tmp_path):
    datasets.load_dataset("Flowers", flowers, cache="none")
    assert "Flowers: the files name 3 classes instead of 102" in caplog.text
    caplog.clear()
    (tmp_path / "classes").write_text("1\n2\n")
    datasets.load_dataset("Flowers", flowers, cache="none", class_list=tmp_path / "classes")
    assert not caplog.text


def test_real_cifar_100():
    dataset = datasets.load_dataset("CIFAR-100", shared("cifar-100-python").parent)
    assert len(dataset.test) == 10_000
    assert np.bincount(dataset.test.labels).tolist() == [100] * 100
    assert (dataset.class_names[0], dataset.class_names[99]) == ("apple", "worm")


def test_real_flowers():
    dataset = datasets.load_dataset("Flowers", shared("flowers"), cache="none")
    assert np.bincount(dataset.train.labels).tolist() == [20] * 102
    assert len(dataset.test) == 1020
    images, labels = dataset.test_batches(4, workers=2, queue_size=2)[3]
    assert images.shape == (4, 448, 448, 3)
    assert labels.tolist() == dataset.test.labels[12:16].tolist()


def test_matlab_files_are_read_in_another_process(tmp_path):
    path = tmp_path / "a.mat"
    struct = np.zeros((1, 2), [("name", object), ("size", object)])
    struct["name"], struct["size"] = [["a", "b b"]], [[1, 2.5]]
    cells = np.array([["x", "yz"]], object)
    scipy.io.savemat(path, {"n": [[1, 2], [3, 4]], "s": struct, "c": cells, "unread": [1]})
    content = files.read_mat(path, "n", "s", optional=("c", "absent"))
    assert {name: array.tolist() for name, array in content.items()} == {
        "n": [[1, 2], [3, 4]], "s.name": ["a", "b b"], "s.size": [1.0, 2.5], "c": ["x", "yz"],
    }  # fmt: skip
    with pytest.raises(UserError, match=r"a\.mat: has no variable absent"):
        files.read_mat(path, "absent")
    path.write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(UserError, match=r"a\.mat: damaged or not a MATLAB file of plain arrays \("):
        files.read_mat(path, "n")


def test_an_epoch_may_repeat_the_images_as_often_as_one_says():
    assert datasets.load_dataset("digits-sub10").train_repeats == 10
    dataset = datasets.load_dataset("digits-sub10", train_repeats=2)
    assert dataset.counts()["train_repeats"] == 2
    _, labels = dataset.train_batches(1000, seed=0)[0]
    assert np.bincount(labels).tolist() == [20] * 10
    assert datasets.load_dataset("digits", train_repeats=3).train_repeats == 3
