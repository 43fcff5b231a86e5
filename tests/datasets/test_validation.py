"""Validation images: drawn class by class, by a seed of their own, from the training images."""

import numpy as np
import pytest

import datasets
from datasets import Validation
from utils import UserError

from .conftest import write_photo


def held_out(seed=0, name="digits-sub10", **options):
    return datasets.load_dataset(name, validation=Validation(**options), split_seed=seed)


def keys(split):
    return [image.tobytes() for image in split.images]


def test_a_share_of_each_class_is_held_out_of_the_subset():
    whole, parted = datasets.load_dataset("digits-sub10"), held_out(fraction=0.33)
    assert np.bincount(parted.validation.labels).tolist() == [3] * 10
    assert np.bincount(parted.train.labels).tolist() == [7] * 10
    assert sorted(keys(parted.train) + keys(parted.validation)) == sorted(keys(whole.train))
    assert keys(parted.test) == keys(whole.test)
    assert parted.counts()["validation_images"] == 30


def test_the_split_seed_draws_it_and_the_training_seed_does_not():
    assert keys(held_out(fraction=0.3).validation) == keys(held_out(fraction=0.3).validation)
    assert keys(held_out(1, fraction=0.3).validation) != keys(held_out(fraction=0.3).validation)


def test_tiny_and_large_shares_leave_both_parts_an_image_of_each_class():
    assert np.bincount(held_out(fraction=0.01).validation.labels).tolist() == [1] * 10
    assert np.bincount(held_out(fraction=0.99).train.labels).tolist() == [1] * 10


def test_folds_are_a_partition_of_equal_parts():
    whole = datasets.load_dataset("digits-sub10")
    parts = [held_out(fold=(i, 4)).validation for i in range(1, 5)]
    assert [len(part) for part in parts] == [25] * 4
    assert sorted(key for part in parts for key in keys(part)) == sorted(keys(whole.train))
    assert all(np.bincount(part.labels, minlength=10).max() <= 3 for part in parts)


def test_epochs_are_judged_by_the_validation_images_as_they_are():
    dataset = held_out(fraction=0.2)
    batches = dataset.validation_batches(100, workers=1)
    images, labels = batches[0]
    np.testing.assert_array_equal(images, dataset.validation.images)
    np.testing.assert_array_equal(labels, dataset.validation.labels)
    assert len(datasets.load_dataset("digits").validation_batches(797, workers=1)) == 1


@pytest.fixture
def folder(tmp_path):
    for label, count in {"a": 6, "b": 6, "one": 1}.items():
        (tmp_path / "data" / "train" / label).mkdir(parents=True)
        (tmp_path / "data" / "test" / label).mkdir(parents=True)
        write_photo(tmp_path / "data" / "test" / label / "t.jpg", 30, 30, 9)
        for i in range(count):
            write_photo(tmp_path / "data" / "train" / label / f"{i}.jpg", 30 + i, 30, i)
    return tmp_path / "data"


def load(root, **options):
    options = {"cache": "ram", "image_size": 16} | options
    return datasets.load_dataset("folder", root, cache_dir=root.parent, **options)


def test_an_image_added_later_moves_no_other(folder):
    split = Validation(fraction=0.34)
    before = load(folder, validation=split)
    assert len(before.validation) == 4
    assert before.validation.store is not None
    assert before.test.store is None  # it is read once only
    write_photo(folder / "train" / "a" / "9.jpg", 30, 40, 9)
    after = load(folder, validation=split)
    assert set(before.validation.images) <= set(after.validation.images)


def test_a_class_with_one_image_keeps_it_for_training(folder, caplog):
    dataset = load(folder, validation=Validation(fold=(1, 2)))
    assert [dataset.class_names[i] for i in set(dataset.validation.labels.tolist())] == ["a", "b"]
    assert "1 class has no validation images: one" in caplog.text


def test_nothing_to_hold_out_is_an_error():
    with pytest.raises(UserError, match="no training images can be held out"):
        held_out(name="digits-sub1", fraction=0.5)
