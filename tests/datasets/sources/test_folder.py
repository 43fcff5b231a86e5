import os

import numpy as np
import pytest
from PIL import Image

import datasets
from utils import UsageError, UserError

from ..conftest import write_photo


def write_classes(root, counts):
    for label, count in counts.items():
        for i in range(count):
            write_photo(root / label / f"{i}.jpg", 40 + i, 50, i)


def load(root, **options):
    options = {"image_size": 28, "cache": "none", "cache_dir": root.parent / "cache"} | options
    return datasets.load_dataset("folder", root, **options)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_split_into_folders(root, test_name):
    write_classes(root / "train", {"dog": 3, "cat": 2})
    write_classes(root / test_name, {"cat": 1, "dog": 1})
    write_photo(root / "train" / "cat" / "deeper" / "x.PNG", 40, 40)
    dataset = load(root)
    assert dataset.class_ids == dataset.class_names == ["cat", "dog"]
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.train.images[2].endswith("cat/deeper/x.PNG")
    assert dataset.test.labels.tolist() == [0, 1]
    assert (dataset.image_size, dataset.spec.test_resize) == (28, 32)


def test_drawn_split(root):
    write_classes(root, {"a": 10, "b": 5, "c": 2})
    dataset = load(root, test_fraction=0.2)
    assert np.bincount(dataset.test.labels).tolist() == [2, 1, 1]
    assert np.bincount(dataset.train.labels).tolist() == [8, 4, 1]
    assert not set(dataset.train.images) & set(dataset.test.images)
    assert load(root, test_fraction=0.2).test.images == dataset.test.images
    assert load(root, test_fraction=0.2, split_seed=1).test.images != dataset.test.images


def relative(split, root):
    return {os.path.relpath(path, root) for path in split.images}


def test_drawn_split_stays_when_images_come_and_go(root):
    write_classes(root, {"b": 20, "c": 10})
    before = load(root, test_fraction=0.2)
    tested = relative(before.test, root)
    # As many are tested of 21 images as of 20.
    write_photo(root / "b" / "00.jpg", 40, 40)
    write_classes(root, {"a": 5})
    after = load(root, test_fraction=0.2)
    assert len(after.test) == len(before.test) + 1
    # Of b a new image may take the place of one, never more.
    assert len(tested - relative(after.test, root)) <= 1
    assert relative(before.train, root) & relative(after.test, root) == set()
    assert {path for path in tested if path[0] == "c"} <= relative(after.test, root)


def test_drawn_split_does_not_depend_on_where_the_root_is(root, tmp_path):
    write_classes(root, {"a": 20, "b": 20})
    first = relative(load(root, test_fraction=0.5).test, root)
    root.rename(tmp_path / "moved")
    assert relative(load(tmp_path / "moved", test_fraction=0.5).test, tmp_path / "moved") == first


def test_lists(root):
    write_classes(root / "images", {"dog": 2, "my cat": 2})
    (root / "train.txt").write_text("images/dog/0.jpg\nimages/my cat/1.jpg\n")
    (root / "test.txt").write_text("images/dog/1.jpg dog\n\nimages/my cat/0.jpg feline")
    dataset = load(root)
    assert dataset.class_ids == ["dog", "feline", "my cat"]
    assert dataset.train.labels.tolist() == [0, 2]
    assert dataset.test.labels.tolist() == [0, 1]
    assert dataset.test.images[1] == str(root / "images/my cat/0.jpg")


def test_paths_that_no_file_can_have_are_named(root):
    write_classes(root / "images", {"a": 2, "b": 2})
    (root / "train.txt").write_text("images/a/0.jpg\nimages/b/\0.jpg\nimages/b/1.jpg")
    (root / "test.txt").write_text("images/a/1.jpg\nimages/b/0.jpg")
    with pytest.raises(UserError, match=r"1 of 5 images cannot be used.*embedded null byte"):
        load(root)


def test_missing_split_asks_for_a_fraction(root):
    write_classes(root, {"a": 2})
    with pytest.raises(UsageError, match="give --test_fraction"):
        datasets.check_dataset("folder", root)


def test_fraction_beside_a_split_is_refused(root):
    write_classes(root / "train", {"a": 2})
    write_classes(root / "test", {"a": 2})
    with pytest.raises(UsageError, match=r"--test_fraction: .* has a split already, train and"):
        datasets.check_dataset("folder", root, test_fraction=0.2)
    with pytest.raises(UsageError, match="--test_fraction: digits has a split of its own"):
        datasets.check_dataset("digits", test_fraction=0.2)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 20])
def test_impossible_fractions(root, fraction):
    write_classes(root, {"a": 2})
    with pytest.raises(UsageError, match=f"--test_fraction {fraction}: expected a share"):
        datasets.check_dataset("folder", root, test_fraction=fraction)


def test_missing_root():
    with pytest.raises(UsageError, match="--data_root is missing: folder needs"):
        datasets.check_dataset("folder")


def test_single_images_cannot_be_split(root):
    write_classes(root, {"a": 2, "b": 1})
    with pytest.raises(UserError, match="data: 1 class has one image, which cannot be split: b"):
        load(root, test_fraction=0.5)


def test_empty_folders_are_named(root):
    write_classes(root / "train", {"a": 2})
    (root / "test").mkdir()
    with pytest.raises(UserError, match="data/test: has no folders"):
        load(root)
    (root / "test" / "a").mkdir()
    with pytest.raises(UserError, match="the lists name no test images"):
        load(root)


def test_classes_that_one_split_lacks_are_named(root, caplog):
    write_classes(root / "train", {"a": 2, "b": 1})
    write_classes(root / "test", {"a": 1, "c": 1})
    dataset = load(root)
    assert dataset.class_ids == ["a", "b", "c"]
    assert "1 class has no training images: c" in caplog.text
    assert "1 class has no test images: b" in caplog.text


def test_classes_never_vanish_silently(root, caplog):
    write_classes(root, {"a": 2, "b": 2})
    (root / "c").mkdir()
    write_photo(root / "loose.jpg", 40, 40)
    write_photo(root / "other.png", 40, 40)
    assert load(root, test_fraction=0.5).class_ids == ["a", "b"]
    assert "1 folder holds no images and is no class, first c" in caplog.text
    assert "ignored 2 images beside the folders of the classes, first loose.jpg" in caplog.text


def test_classes_lost_with_bad_images_are_named(root, caplog):
    write_classes(root / "train", {"a": 2, "b": 2, "c": 1})
    write_classes(root / "test", {"a": 1, "b": 1, "c": 1})
    for path in ("train/c/0.jpg", "test/b/0.jpg"):
        (root / path).write_bytes(b"damaged")
    dataset = load(root, skip_bad_images=True)
    assert dataset.class_ids == ["a", "b", "c"]
    assert "1 class has no training images: c" in caplog.text
    assert "1 class has no test images: b" in caplog.text
    for i in range(2):
        (root / "train" / "b" / f"{i}.jpg").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"only a has images to train on; .* two or more"):
        load(root, skip_bad_images=True)


def test_a_single_class_is_refused(root):
    write_classes(root / "train", {"a": 2})
    write_classes(root / "test", {"a": 1, "b": 1})
    with pytest.raises(UserError, match=r"only a has images to train on; .* two or more"):
        load(root)


def test_split_that_is_a_link_to_the_other_is_refused(root):
    write_classes(root / "train", {"a": 2, "b": 2})
    (root / "test").symlink_to(root / "train")
    with pytest.raises(
        UserError, match=r"4 images are in both.*test/a/0\.jpg, which is the file .*train/a/0\.jpg"
    ):
        load(root)
    # Only the test images are looked at here.
    assert len(load(root, splits=("test",)).test) == 4


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_images_linked_into_another_class_are_refused(root, link):
    write_classes(root, {"a": 3, "b": 3})
    link(root / "a" / "1.jpg", root / "b" / "again.jpg")
    names = r"(b/again\.jpg.*a/1\.jpg|a/1\.jpg.*b/again\.jpg)"
    with pytest.raises(UserError, match=rf"1 (training )?image is .*{names}"):
        load(root, test_fraction=0.34)


def test_an_evaluation_needs_the_test_images_only(root, monkeypatch):
    write_classes(root / "train", {"a": 2, "b": 1})
    write_classes(root / "test", {"b": 2, "c": 1})
    whole = load(root)
    (root / "train" / "a" / "0.jpg").write_bytes(b"damaged")
    (root / "train" / "a" / "1.jpg").write_bytes(b"damaged")
    monkeypatch.setattr("datasets.statistics.of_files", None)
    for cache in ("auto", "none", "ram", "disk"):
        dataset = load(root, splits=("test",), cache=cache, skip_bad_images=True)
        assert dataset.class_ids == ["a", "b", "c"]
        assert dataset.skipped == []
        assert len(dataset.train) == 3
        assert dataset.train.store is None
        images, labels = dataset.test_batches(3)[0]
        assert labels.tolist() == [1, 1, 2]
        assert np.abs(images.astype(int) - whole.test_batches(3)[0][0]).max() <= 1
    assert [file.name for file in (root.parent / "cache").glob("*train*")] == []
    with pytest.raises(ValueError, match="expected train, test or both"):
        load(root, splits=("val",))


def test_other_files_are_counted_and_hidden_ones_ignored(root, caplog):
    write_classes(root, {"a": 2, "b": 2})
    (root / "a" / "notes.txt").write_text("")
    (root / "a" / ".DS_Store").write_text("")
    (root / ".git").mkdir()
    dataset = load(root, test_fraction=0.5)
    assert len(dataset.train) == len(dataset.test) == 2
    assert "ignored 1 file that is no image by its name" in caplog.text


def test_loops_of_links_are_named(root):
    write_classes(root, {"a": 2})
    (root / "a" / "again").symlink_to(root / "a")
    with pytest.raises(UserError, match="a/again: a link back to a folder above"):
        load(root, test_fraction=0.5)


def test_links_to_themselves_are_reported(root):
    write_classes(root, {"a": 3, "b": 2})
    (root / "a" / "self.jpg").symlink_to(root / "a" / "self.jpg")
    with pytest.raises(UserError, match=r"self\.jpg: Too many levels of symbolic links"):
        load(root, test_fraction=0.5)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_folders_are_named(root):
    write_classes(root, {"a": 2})
    (root / "a").chmod(0)
    with pytest.raises(UserError, match="data/a: Permission denied"):
        load(root, test_fraction=0.5)


def test_unreadable_folders(root, monkeypatch):
    write_classes(root, {"a": 2})
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("data/a"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(UserError, match="data/a: Permission denied"):
        load(root, test_fraction=0.5)


@pytest.mark.parametrize("name", ["folder", "Flowers", "CUB", "CIFAR-10"])
def test_roots_that_cannot_be_searched(root, monkeypatch, name):
    root.mkdir()
    stat = os.stat

    def denied(path, *args, **options):
        if str(path).startswith(f"{root}{os.sep}"):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *args, **options)

    monkeypatch.setattr(os, "stat", denied)
    with pytest.raises(
        UsageError, match=r"/data: cannot look for .* \(Permission denied\)"
    ) as error:
        datasets.check_dataset(name, root)
    assert "\n" not in str(error.value)


def test_statistics_are_computed_once_over_all_pixels(root, monkeypatch):
    write_classes(root, {"a": 3, "b": 4})
    dataset = load(root, test_fraction=0.3)
    pixels = np.concatenate(
        [np.asarray(Image.open(f)).reshape(-1, 3) for f in dataset.train.images]
    )
    np.testing.assert_allclose(dataset.mean, pixels.mean(0, np.float64), rtol=1e-10)
    np.testing.assert_allclose(dataset.std, pixels.std(0, dtype=np.float64), rtol=1e-10)
    assert dataset.std_epsilon == 0

    def forbidden(path):
        raise AssertionError(f"read again: {path}")

    monkeypatch.setattr("datasets.statistics._histogram", forbidden)
    assert load(root, test_fraction=0.3).mean == dataset.mean
    # Another file is another training set.
    write_photo(root / "a" / "new.jpg", 50, 50, 9)
    with pytest.raises(AssertionError, match="read again"):
        load(root, test_fraction=0.3)


def test_published_statistics_replace_computed_ones(root):
    write_classes(root, {"a": 3, "b": 4})
    dataset = datasets.load_dataset(
        "folder-caffe", root, test_fraction=0.3, cache="none", cache_dir=root.parent / "cache"
    )
    assert dataset.mean == (123.68, 116.779, 103.939)
    assert not (root.parent / "cache").exists()


def test_computing_statistics_finds_all_damaged_images(root, caplog):
    write_classes(root / "train", {"a": 3, "b": 3})
    write_classes(root / "test", {"a": 1, "b": 1})
    for path in ("a/1.jpg", "b/2.jpg"):
        whole = (root / "train" / path).read_bytes()
        (root / "train" / path).write_bytes(whole[:-500])  # the header stays
    with pytest.raises(UserError, match="2 of 6 images cannot be used"):
        load(root)
    assert "a/1.jpg: cannot be read" in caplog.text
    assert "b/2.jpg: cannot be read" in caplog.text
    dataset = load(root, skip_bad_images=True)
    assert len(dataset.train) == 4
    assert len(dataset.skipped) == 2


def test_damaged_statistics_are_made_anew(root):
    write_classes(root, {"a": 3, "b": 4})
    mean = load(root, test_fraction=0.3).mean
    (kept,) = (root.parent / "cache").glob("*.statistics.json")
    kept.write_text('{"mean": [1, 2')
    assert load(root, test_fraction=0.3).mean == mean
    assert kept.read_text().endswith("}")
