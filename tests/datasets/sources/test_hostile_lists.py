"""The lists of every data set, mutated: one line for the user, and nothing else."""

import logging
import os

import pytest

import datasets

from ...mutating import read_mutated
from ..conftest import write_cars, write_lines, write_photo


@pytest.fixture
def birds(cub):
    write_lines(
        cub / "train_test_split_2.txt", [f"{i} {int(i in (1, 4, 5, 8))}" for i in range(1, 9)]
    )
    return cub


@pytest.fixture
def cars(tmp_path):
    (tmp_path / "cars").mkdir()
    return write_cars(tmp_path / "cars")


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "own"
    for name in ("a/1.jpg", "a/2.jpg", "b/3 4.png", "b/5.jpg", "a/6.jpg"):
        write_photo(root / name, 40, 30, len(name))
    write_lines(root / "train.txt", ["a/1.jpg cat", "a/2.jpg", "b/3 4.png dog", "b/5.jpg"])
    write_lines(root / "val.txt", ["a/6.jpg cat"])
    return root


@pytest.fixture
def listed(scenes):
    write_lines(scenes / "classes.txt", ["bar a place to  drink", "attic"])
    return scenes


# fixture, data set, file
LISTS = [
    ("birds", "CUB-sub2", "images.txt"),
    ("birds", "CUB-sub2", "image_class_labels.txt"),
    ("birds", "CUB", "train_test_split.txt"),
    ("birds", "CUB-sub2", "train_test_split_2.txt"),
    ("birds", "CUB", "classes.txt"),
    ("nab", "NAB", "images.txt"),
    ("nab", "NAB", "image_class_labels.txt"),
    ("scenes", "MIT67Scenes", "TrainImages.txt"),
    ("scenes", "MIT67Scenes", "TestImages.txt"),
    ("folder", "folder", "train.txt"),
    ("folder", "folder", "val.txt"),
    ("listed", "MIT67Scenes", "classes.txt"),
    ("cars", "Cars", "cars_annos.mat"),
    ("flowers", "Flowers", "imagelabels.mat"),
    ("flowers", "Flowers", "setid.mat"),
    ("cifar_100", "CIFAR-100", "train"),
    ("cifar_100", "CIFAR-100-b", "meta"),
    ("cifar_10", "CIFAR-10", "data_batch_3"),
]


@pytest.mark.parametrize(("fixture", "name", "file"), LISTS)
@pytest.mark.filterwarnings("ignore")
def test_mutated_lists_are_read_or_refused_in_one_line(
    fixture, name, file, request, forked_reading, tmp_path, monkeypatch
):
    root = request.getfixturevalue(fixture)
    write_photo(root.parent / "outside.jpg", 30, 30)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    logging.disable()  # warnings of classes without images

    def read():
        class_list = root / file if fixture == "listed" else None
        dataset = datasets.load_dataset(
            name, root, image_size=32, cache="none", cache_dir=tmp_path / "c", class_list=class_list
        )
        assert dataset.counts()["train_images"] > 0
        for images in (dataset.train.images, dataset.test.images):
            if isinstance(images, list):
                assert all(os.path.normpath(path).startswith(str(root)) for path in images)
        assert all(isinstance(class_id, int | str) for class_id in dataset.class_ids)

    read_mutated(root / file, read, known="c")
    logging.disable(logging.NOTSET)
