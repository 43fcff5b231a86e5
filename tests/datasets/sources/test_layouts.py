"""Folders and lists as users have them, with what systems and programs put between the images."""

import logging
import unicodedata

import numpy as np
import pytest

import datasets
from datasets.sources import folder
from utils import UsageError, UserError

from ..conftest import write_photo


def write(root, *paths):
    for i, path in enumerate(paths):
        write_photo(root / path, 40 + i, 50, i)


def load(root, **options):
    options = {"image_size": 28, "cache": "none", "cache_dir": root.parent / "cache"} | options
    return datasets.load_dataset("folder", root, **options)


def names(split):
    return [path.rpartition("/")[2] for path in split.images]


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


CLUTTER = [
    "@eaDir",
    "@SynoResource",
    "__MACOSX",
    "lost+found",
    ".ipynb_checkpoints",
    "$RECYCLE.BIN",
    "#recycle",
]


@pytest.mark.parametrize("place", ["", "a/", "a/deeper/"])
def test_what_systems_put_between_is_no_class_and_no_image(root, place, caplog):
    write(root, "a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg")
    before = load(root, test_fraction=0.5)
    for i, name in enumerate(CLUTTER):
        write_photo(root / place / name / "1.jpg" / "SYNOPHOTO_THUMB_M.jpg", 30, 30, 10 + i)
    write_photo(root / "a" / "._1.jpg", 30, 30, 20)
    (root / "a" / "Thumbs.db").write_bytes(b"thumbnails")
    caplog.clear()
    after = load(root, test_fraction=0.5)
    assert after.class_ids == ["a", "b"]
    assert (after.train.images, after.test.images) == (before.train.images, before.test.images)
    assert "ignored 7 folders and files of systems, first " in caplog.text


@pytest.mark.parametrize(
    ("train", "test"),
    [("Train", "Test"), ("TRAINING", "Testing"), ("train_images", "test-set"), ("train", "Valid"),
     ("trainset", "evaluation"), ("train", "dev")],
)  # fmt: skip
def test_splits_by_other_names(root, train, test):
    write(root, f"{train}/a/1.jpg", f"{train}/b/2.jpg", f"{test}/a/3.jpg", f"{test}/b/4.jpg")
    dataset = load(root)
    assert dataset.class_ids == ["a", "b"]
    assert (names(dataset.train), names(dataset.test)) == (["1.jpg", "2.jpg"], ["3.jpg", "4.jpg"])


def test_folders_beside_a_split_are_named(root, caplog):
    caplog.set_level(logging.INFO)
    for i, part in enumerate(("train", "test", "more", "@eaDir")):
        write(root, f"{part}/a/{i}a.jpg", f"{part}/b/{i}b.jpg")
    load(root)
    assert "folder: tested on test; more is not used" in caplog.text


def test_of_validation_and_test_images_the_latter_are_tested(root, caplog):
    caplog.set_level(logging.INFO)
    for i, part in enumerate(("train", "val", "test")):
        write(root, f"{part}/a/{i}a.jpg", f"{part}/b/{i}b.jpg")
    assert names(load(root).test) == ["2a.jpg", "2b.jpg"]
    assert "folder: tested on test; val is not used" in caplog.text
    (root / "test").rename(root / "eval")
    assert names(load(root).test) == ["2a.jpg", "2b.jpg"]
    assert "folder: tested on eval; val is not used" in caplog.text


def test_two_folders_for_one_split_are_refused(root):
    write(root, "train/a/1.jpg", "Training/b/2.jpg", "test/a/3.jpg")
    with pytest.raises(UsageError, match="Training and train mean the same split; rename or join"):
        load(root)


def test_a_class_may_be_called_train(root):
    write(root, "train/1.jpg", "train/2.jpg", "bus/3.jpg", "bus/4.jpg")
    assert load(root, test_fraction=0.5).class_ids == ["bus", "train"]


def test_a_training_folder_alone_is_split(root):
    write(root, "train/a/1.jpg", "train/a/2.jpg", "train/b/3.jpg", "train/b/4.jpg")
    with pytest.raises(UsageError, match=r"has train, but no test/ or test\.txt; give --test_fr"):
        load(root)
    with pytest.raises(UsageError, match="has train, but no test/"):
        load(root, splits=("test",))
    dataset = load(root, test_fraction=0.5)
    assert (dataset.class_ids, len(dataset.train), len(dataset.test)) == (["a", "b"], 2, 2)


def test_images_to_test_on_need_no_training_images(root, caplog):
    write(root, "test/a/1.jpg", "test/b/2.jpg", "test/b/3.jpg")
    with pytest.raises(UsageError, match=r"has test, but no train/ or train\.txt to train on"):
        load(root)
    dataset = load(root, splits=("test",))
    assert names(dataset.test) == ["1.jpg", "2.jpg", "3.jpg"]
    assert dataset.spec.test_fraction is None
    # Folders of classes: all of them.
    dataset = load(root / "test", splits=("test",))
    assert dataset.class_ids == ["a", "b"]
    assert names(dataset.test) == ["1.jpg", "2.jpg", "3.jpg"]
    assert dataset.spec.test_fraction == 1
    assert dataset.counts()["test_images"] == 3
    images, labels = dataset.test_batches(3)[0]
    assert (images.shape, labels.tolist()) == ((3, 28, 28, 3), [0, 1, 1])
    assert not caplog.records
    with pytest.raises(UsageError, match="--test_fraction 1: expected a share between 0 and 1"):
        load(root / "test", test_fraction=1)


@pytest.mark.parametrize(
    "line",
    ["a b/1.jpg\tmy cat", "a b/1.jpg my cat", "a b/1.jpg,my cat", "a b/1.jpg ; my cat",
     '"a b/1.jpg","my cat"', '"a b/1.jpg" "my cat"', "a b/1.jpg, my cat", "a b\\1.jpg\tmy cat"],
)  # fmt: skip
def test_lists_with_spaces(root, line):
    write(root, "a b/1.jpg", "c/2.jpg", "c/3.jpg", "c/4.jpg")
    (root / "train.csv").write_text(f"path,label\n{line}\nc/2.jpg\tdog\n")
    (root / "Test.txt").write_text("c/3.jpg\tmy cat\nc/4.jpg\tdog\n")
    dataset = load(root)
    assert dataset.class_ids == ["dog", "my cat"]
    assert names(dataset.train) == ["1.jpg", "2.jpg"]
    assert dataset.train.labels.tolist() == [1, 0]


def test_a_list_and_a_folder_are_no_split(root):
    write(root, "train/a/1.jpg", "train/b/2.jpg", "train/b/3.jpg")
    (root / "test.txt").write_text("train/a/1.jpg\ntrain/b/2.jpg\n")
    with pytest.raises(UsageError, match=r"has test\.txt, but no train\.txt to train on"):
        load(root)
    (root / "train").rename(root / "test")
    (root / "test.txt").rename(root / "train.txt")
    with pytest.raises(UsageError, match=r"has train\.txt, but no test\.txt; give --test_fraction"):
        load(root)


def test_lists_with_the_label_first(root):
    write(root, "a/1.jpg", "b/2.jpg")
    (root / "test.txt").write_text("a/1.jpg\nb/2.jpg\n")
    for line in ("cat a/1.jpg", "cat,a/1.jpg", "cat\ta/1.jpg"):
        (root / "train.txt").write_text(f"{line}\n")
        with pytest.raises(UserError, match=r"train\.txt:1: .*`path \[label\]`.* 'cat' first"):
            load(root)


def test_folders_below_those_of_the_classes_may_be_the_classes(root, caplog):
    parts = ("seg_train", "seg_test")
    write(root, *(f"{part}/{name}/{i}.jpg" for part in parts for name in "ab" for i in range(2)))
    assert load(root, test_fraction=0.5).class_ids == ["seg_test", "seg_train"]
    assert (
        f"{root}: taken for classes: seg_test, seg_train; if rather a, b in it are the classes, "
        f"give --data_root {root}/seg_test, or call the folders train and test"
    ) in caplog.text
    with pytest.raises(UserError, match="only data has images"):
        load(root.parent, test_fraction=0.5)
    assert f"if rather seg_test, seg_train in it are the classes, give --data_root {root}" in (
        caplog.text
    )
    caplog.clear()
    write(root, "seg_train/1.jpg")  # some images of its own
    load(root, test_fraction=0.5)
    assert not caplog.records


def test_lists_leave_out_what_systems_put_between(root, caplog):
    write(root, "a/1.jpg", "b/2.jpg", "a/@eaDir/1.jpg/thumb.jpg", "a/3.jpg", "b/4.jpg")
    (root / "train.txt").write_text("a/1.jpg\n./b/2.jpg\na/@eaDir/1.jpg/thumb.jpg\n")
    (root / "test.txt").write_text("a/3.jpg\nb/4.jpg\n")
    assert names(load(root).train) == ["1.jpg", "2.jpg"]
    assert "left out 1 line of hidden files or of systems' folders, first a/@eaDir" in caplog.text


def test_names_that_look_alike_are_one_class(root, caplog):
    whole, apart = (unicodedata.normalize(form, "löwe") for form in ("NFC", "NFD"))
    write(root, f"train/{apart}/1.jpg", "train/b/2.jpg", f"test/{whole}/3.jpg", "test/b/4.jpg")
    dataset = load(root)
    assert dataset.class_ids == ["b", whole]
    assert dataset.test.labels.tolist() == [0, 1]
    assert not caplog.records
    # A list, written on the one system, of files on the other.
    (root / "train.txt").write_text(f"train/{whole}/1.jpg\ntrain/b/2.jpg", encoding="utf-8")
    (root / "test.txt").write_text(f"test/{apart}/3.jpg\ntest/b/4.jpg", encoding="utf-8")
    assert load(root).train.images[0] == str(root / "train" / apart / "1.jpg")
    assert load(root).class_ids == ["b", whole]
    write(root, f"train/{whole}/5.jpg", "train/B/6.jpg")
    for name in ("train.txt", "test.txt"):
        (root / name).unlink()
    assert np.bincount(load(root).train.labels).tolist() == [1, 1, 2]
    assert f"two folders are called {whole}; they are one class" in caplog.text
    assert "the classes 'B' and 'b' differ by capitals or spaces only" in caplog.text


def test_photographs_of_other_formats_are_named(root, caplog):
    write(root, "a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg")
    (root / "a" / "IMG_1.HEIC").write_bytes(b"photo")
    load(root, test_fraction=0.5)
    assert "left out 1 image of a format that is not read; convert " in caplog.text
    assert "IMG_1.HEIC to JPEG" in caplog.text
    caplog.clear()
    assert len(folder.list_images(root)) == 4  # what predict.py labels
    assert "IMG_1.HEIC to JPEG" in caplog.text


def test_all_classes_that_cannot_be_split_are_named(root):
    write(root, "a/1.jpg", "b/2.jpg", "c/3.jpg", "c/4.jpg")
    with pytest.raises(UserError, match="2 classes have one image, which cannot be split: a, b; "):
        load(root, test_fraction=0.5)
