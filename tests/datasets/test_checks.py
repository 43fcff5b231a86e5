"""Bad images and bad lists: named, all at once, and left out only when asked for."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io

import datasets
from utils import UsageError, UserError

from .conftest import write_photo

CACHES = ["none", "ram", "disk"]


def load(root, cache="none", **options):
    return datasets.load_dataset(
        "Flowers", root, image_size=32, cache=cache, cache_dir=root.parent / "cache", **options
    )


def cut(path):
    path.write_bytes(path.read_bytes()[:700])


@pytest.fixture
def damaged(flowers):
    """Images 2 (training) and 8 (test) are damaged."""
    for number in (2, 8):
        cut(flowers / "jpg" / f"image_{number:05}.jpg")
    return flowers


@pytest.mark.parametrize("cache", CACHES)
def test_missing_images_are_all_named(flowers, cache, caplog):
    for number in (2, 8):
        (flowers / "jpg" / f"image_{number:05}.jpg").unlink()
    with pytest.raises(UserError, match=r"2 of 9 images cannot be used.*--skip_bad_images"):
        load(flowers, cache)
    assert "image_00002.jpg: No such file" in caplog.text
    assert "image_00008.jpg: No such file" in caplog.text
    dataset = load(flowers, cache, skip_bad_images=True)
    assert (len(dataset.train), len(dataset.test)) == (5, 2)


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_filling_the_cache_finds_all_damaged_images(damaged, cache, caplog):
    for _ in range(2):  # the second time the disk form is there already
        caplog.clear()
        with pytest.raises(UserError, match="2 of 9 images cannot be used"):
            load(damaged, cache)
        assert "image_00002.jpg: cannot be read as an image" in caplog.text
        assert "image_00008.jpg: cannot be read as an image" in caplog.text


@pytest.mark.parametrize("cache", CACHES)
def test_skipped_images_are_counted_and_gone(damaged, cache):
    dataset = load(damaged, cache, skip_bad_images=True)
    counts = dataset.counts()
    assert (counts["train_images"], counts["test_images"]) == (5, 2)
    assert counts["skipped_images"] == 2
    assert len(dataset.skipped) == 2
    assert dataset.train.labels.tolist() == [0, 2, 0, 1, 2]
    reference = load(damaged, skip_bad_images=True)
    for batches, expected in (
        (dataset.test_batches(9), reference.test_batches(9)),
        (dataset.train_batches(9, seed=0), reference.train_batches(9, seed=0)),
    ):
        difference = np.abs(batches[0][0].astype(int) - expected[0][0])
        assert difference.max() <= 1
        assert np.array_equal(batches[0][1], expected[0][1])


def test_check_images_lists_all(damaged):
    (damaged / "jpg" / "image_00005.jpg").unlink()
    (damaged / "jpg" / "image_00006.jpg").write_text("not an image")
    found, doubtful = load(damaged, check_files=False).check_images()
    assert doubtful == []
    assert [Path(line.split(":")[0]).name for line in found] == [
        f"image_{number:05}.jpg" for number in (2, 6, 5, 8)
    ]
    assert datasets.load_dataset("digits").check_images() == ([], [])


def test_no_image_left(flowers):
    for number in (7, 8, 9):
        cut(flowers / "jpg" / f"image_{number:05}.jpg")
    with pytest.raises(UserError, match="no usable test images are left"):
        load(flowers, skip_bad_images=True)


@pytest.mark.parametrize("cache", CACHES)
def test_files_that_are_no_images_are_all_named_at_the_start(flowers, cache, caplog):
    for number in (2, 8):
        (flowers / "jpg" / f"image_{number:05}.jpg").write_text("not an image")
    with pytest.raises(UserError, match=r"2 of 9 images cannot be used.*--skip_bad_images"):
        load(flowers, cache)
    assert "image_00002.jpg: cannot be read as an image" in caplog.text
    assert "image_00008.jpg: cannot be read as an image" in caplog.text
    assert not (flowers.parent / "cache").exists()


def test_directories_are_no_images(flowers):
    path = flowers / "jpg" / "image_00002.jpg"
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"image_00002\.jpg: is not a file"):
        load(flowers)


def rewrite_split(root, **changes):
    splits = {"trnid": [[1, 2, 3]], "valid": [[6, 5, 4]], "tstid": [[7, 8, 9]], **changes}
    scipy.io.savemat(root / "setid.mat", splits)


def test_images_in_both_splits(flowers):
    rewrite_split(flowers, tstid=[[3, 7, 8]])
    with pytest.raises(UserError, match=r"1 image is in both.*image_00003\.jpg"):
        load(flowers)


def test_images_listed_twice(flowers):
    rewrite_split(flowers, valid=[[6, 5, 3]])
    with pytest.raises(UserError, match=r"1 training image is listed more than once.*00003"):
        load(flowers)


def test_class_list_selects_and_orders(flowers, tmp_path):
    (tmp_path / "classes.txt").write_text("3 roses\n\n1 tulips and others\n")
    spec = datasets.check_dataset("Flowers", flowers, class_list=tmp_path / "classes.txt")
    assert spec.num_classes == 2
    dataset = load(flowers, class_list=tmp_path / "classes.txt")
    assert dataset.class_ids == [3, 1]
    assert dataset.class_names == ["3", "1"]
    whole = load(flowers)
    kept = np.flatnonzero(whole.train.labels != 1)
    assert dataset.train.images == [whole.train.images[i] for i in kept]
    assert dataset.train.labels.tolist() == [1, 0, 1, 0]
    assert dataset.test.labels.tolist() == [1, 0]


def test_class_list_of_arrays(cifar_100, tmp_path):
    (tmp_path / "classes.txt").write_text("70\n30\n")
    dataset = datasets.load_dataset("CIFAR-100", cifar_100, class_list=tmp_path / "classes.txt")
    assert dataset.class_names == ["name70", "name30"]
    assert np.bincount(dataset.train.labels).tolist() == [2, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1\n2\n1\n", "class 1 is listed more than once"),
        ("\n", "lists no classes"),
        ("1", "expected at least two classes"),
    ],
)
def test_wrong_class_lists(flowers, tmp_path, content, message):
    (tmp_path / "classes.txt").write_text(content)
    with pytest.raises(UsageError, match=rf"--class_list .*classes\.txt(:3)?: {message}"):
        datasets.check_dataset("Flowers", flowers, class_list=tmp_path / "classes.txt")


def test_class_lists_that_cannot_be_read(flowers, tmp_path):
    with pytest.raises(UsageError, match=r"--class_list .*none: No such file"):
        datasets.check_dataset("Flowers", flowers, class_list=tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"--class_list .*binary: not a text file"):
        datasets.check_dataset("Flowers", flowers, class_list=tmp_path / "binary")


def test_unknown_classes_in_a_class_list(flowers, tmp_path):
    (tmp_path / "classes.txt").write_text("1\n2\n77\n")
    with pytest.raises(
        UserError, match=r"classes\.txt:3: 1 line names no class of Flowers: '77'.*like 1, 2, 3"
    ):
        load(flowers, class_list=tmp_path / "classes.txt")


@pytest.mark.parametrize("line", ["../outside.jpg cat", "/etc/hostname cat", "a/../../outside.jpg"])
def test_lists_may_not_lead_out_of_the_folder(tmp_path, line):
    root = tmp_path / "own"
    for name in ("a/1.jpg", "b/2.jpg", "../outside.jpg"):
        write_photo(root / name, 40, 30)
    (root / "train.txt").write_text(f"a/1.jpg\nb/2.jpg\n{line}\n")
    (root / "test.txt").write_text("a/3.jpg\n")
    with pytest.raises(UserError, match=rf"folder: the lists name .* not under {root};"):
        datasets.load_dataset("folder", root, cache="none")


def test_images_may_be_links_to_other_places(tmp_path):
    root = tmp_path / "own"
    for i in range(4):
        write_photo(tmp_path / "store" / f"{i}.jpg", 40, 30, i)
    for i, name in enumerate(("train/a", "train/b", "test/a", "test/b")):
        (root / name).mkdir(parents=True)
        (root / name / "x.jpg").symlink_to(tmp_path / "store" / f"{i}.jpg")
    assert len(datasets.load_dataset("folder", root, cache="none", cache_dir=tmp_path).train) == 2
