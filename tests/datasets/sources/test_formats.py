"""Loaders of the data sets of files, on small ones in each official layout."""

import numpy as np
import pytest
import scipy.io

import datasets
from utils import UsageError, UserError

from ..conftest import write_cars, write_lines, write_photo


def names_of(split):
    return [path.rsplit("/", 1)[1] for path in split.images]


def test_cub(cub):
    dataset = datasets.load_dataset("CUB-200-2011", cub.parent, cache="none")
    assert dataset.name == "CUB"
    assert names_of(dataset.train) == [f"{i} photo.jpg" for i in (1, 3, 4, 5, 6, 8)]
    assert names_of(dataset.test) == ["2 photo.jpg", "7 photo.jpg"]
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.class_ids == [1, 2]
    assert dataset.class_names == ["001.Albatross", "002.Tree Sparrow"]
    assert dataset.spec.resize == (512, 512)
    assert dataset.mean == (123.82988033, 127.35116805, 110.25606303)


def test_cub_subset_of_its_own_file(cub):
    write_lines(
        cub / "train_test_split_2.txt", [f"{i} {int(i in (1, 4, 5, 8))}" for i in range(1, 9)]
    )
    dataset = datasets.load_dataset("CUB-sub2", cub, cache="none")
    assert names_of(dataset.train) == [f"{i} photo.jpg" for i in (1, 4, 5, 8)]
    # The test images are all of them, whatever the subset leaves.
    assert names_of(dataset.test) == ["2 photo.jpg", "7 photo.jpg"]
    assert dataset.train_repeats == 15
    assert datasets.load_dataset("cub-sub2", cub, split_seed=5, cache="none").train.images == (
        dataset.train.images
    )


def test_cub_subset_drawn_where_there_is_no_file(cub):
    draws = [
        datasets.load_dataset("CUB-sub1", cub, split_seed=seed, cache="none").train
        for seed in range(20)
    ]
    assert all(draw.labels.tolist() == [0, 1] for draw in draws)
    assert len({tuple(draw.images) for draw in draws}) > 3


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("images.txt", "3 1.Bird/9 photo.jpg", r"images\.txt:9: id 3 is listed twice"),
        ("images.txt", "9", r"images\.txt:9: expected an id and a value"),
        ("images.txt", "9 1.Bird/9.jpg", r"image 9 is in images\.txt only"),
        ("image_class_labels.txt", "9 1", r"image 9 is in image_class_labels\.txt only"),
        ("train_test_split.txt", "9 1", r"image 9 is in train_test_split\.txt only"),
        ("train_test_split.txt", "9 yes", r"train_test_split\.txt: expected lines of an id and a"),
        ("train_test_split.txt", "9 2", r"train_test_split\.txt: 9 should have 0 or 1"),
        ("train_test_split_1.txt", "2 2", r"train_test_split_1\.txt: 2 should have 0 or 1"),
        ("train_test_split_1.txt", "9 1", r"train_test_split_1\.txt: image 9 is not in images"),
        ("train_test_split_1.txt", "2 1", "1 image is in both the training and the test split"),
    ],
)
def test_wrong_cub_lists(cub, file, line, message):
    content = (cub / file).read_text() if (cub / file).exists() else "1 1"
    (cub / file).write_text(f"{content}\n{line}\n")
    with pytest.raises(UserError, match=message):
        datasets.load_dataset("CUB-sub1", cub)


def test_nab_labels_are_renumbered_in_ascending_order(nab):
    dataset = datasets.load_dataset("nabirds", nab.parent, cache="none")
    assert dataset.class_ids == [295, 817, 1010]
    assert dataset.class_names == ["Swan (Adult)", "Duck", "Finch"]
    assert dataset.train.labels.tolist() == [2, 0, 1]
    spec = dataset.spec
    assert (spec.image_size, spec.resize, spec.test_resize) == (224, (256, 479), 256)
    large = datasets.check_dataset("NAB-large", nab)
    assert (large.name, large.image_size) == ("NAB-large", 448)
    assert (large.resize, large.test_resize) == ((512, 512), 512)
    half = datasets.check_dataset("NAB", nab, image_size=112)
    assert (half.image_size, half.resize, half.test_resize) == (112, (128, 240), 128)


def test_cars(tmp_path):
    dataset = datasets.load_dataset("stanford-cars", write_cars(tmp_path), cache="none")
    assert dataset.name == "Cars"
    assert names_of(dataset.train) == ["000001.jpg", "000002.jpg", "000003.jpg"]
    assert names_of(dataset.test) == ["000004.jpg", "000005.jpg"]
    assert dataset.train.labels.tolist() == [0, 1, 0]
    assert dataset.test.labels.tolist() == [1, 0]
    assert dataset.class_ids == [1, 2]
    assert dataset.class_names == ["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]


@pytest.mark.parametrize("place", ["", "devkit"])
def test_cars_as_their_devkit_lists_them(tmp_path, place):
    root = tmp_path / "stanford_cars"
    for part, file, labels in (
        ("cars_train", "devkit/cars_train_annos.mat", [2, 1, 2]),
        ("cars_test", f"{place}/cars_test_annos_withlabels.mat", [1, 2]),
    ):
        annotations = np.zeros((1, len(labels)), [("bbox_x1", object), ("class", object),
                                                  ("fname", object)])  # fmt: skip
        for i, label in enumerate(labels):
            annotations[0, i] = (7, label, f"{i + 1:05}.jpg")
            write_photo(root / part / f"{i + 1:05}.jpg", 60, 50 + i, i)
        (root / "devkit").mkdir(exist_ok=True)
        scipy.io.savemat(root / file.lstrip("/"), {"annotations": annotations})
    names = np.array([["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]], object)
    scipy.io.savemat(root / "devkit" / "cars_meta.mat", {"class_names": names})
    dataset = datasets.load_dataset("Cars", tmp_path, cache="none")
    assert dataset.class_ids == [1, 2]
    assert dataset.class_names == ["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]
    assert dataset.train.labels.tolist() == [1, 0, 1]
    assert dataset.test.labels.tolist() == [0, 1]
    assert dataset.test.images[1] == str(root / "cars_test" / "00002.jpg")
    # Without labels there is nothing to test on.
    (root / place / "cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(UsageError, match=r"cars_test_annos_withlabels\.mat is missing"):
        datasets.check_dataset("Cars", root)


def test_cars_in_folders(tmp_path):
    for i, name in enumerate(("train/Acura RL", "train/Audi A5", "test/Acura RL", "test/Audi A5")):
        write_photo(tmp_path / "car_data" / "car_data" / name / "1.jpg", 60, 50, i)
    dataset = datasets.load_dataset("Cars", tmp_path, cache="none")
    assert dataset.class_ids == ["Acura RL", "Audi A5"]
    assert (dataset.train.labels.tolist(), dataset.test.labels.tolist()) == ([0, 1], [0, 1])
    assert dataset.mean == (120.03730636, 117.33780928, 116.0130335)


def test_cars_without_a_field(tmp_path):
    without = np.zeros((1, 2), [("relative_im_path", object), ("class", object)])
    write_cars(tmp_path, annotations=without)
    with pytest.raises(UserError, match=r"cars_annos\.mat: has no annotations\.test"):
        datasets.load_dataset("Cars", tmp_path)


def test_cars_with_several_values_in_one(tmp_path):
    wrong = np.zeros((1, 1), [(name, object) for name in ("relative_im_path", "class", "test")])
    wrong[0, 0] = ("a.jpg", [1, 2], 0)
    write_cars(tmp_path, annotations=wrong)
    with pytest.raises(
        UserError, match=r"cars_annos\.mat: .*annotations\.class should hold single values"
    ):
        datasets.load_dataset("Cars", tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("class", 1.5, "class should be whole numbers"),
        ("class", float("nan"), "class should be whole numbers"),
        ("class", "two", "class should be whole numbers"),
        ("test", 2, "test should be 0 or 1"),
        ("test", 0.5, "test should be 0 or 1"),
    ],
)
def test_cars_with_wrong_numbers(tmp_path, column, value, message):
    write_cars(tmp_path)
    annotations = scipy.io.loadmat(tmp_path / "cars_annos.mat")["annotations"]
    annotations[column][0, 1] = value
    write_cars(tmp_path, annotations=annotations)
    with pytest.raises(UserError, match=rf"cars_annos\.mat: {message}"):
        datasets.load_dataset("Cars", tmp_path)


def test_mit67(scenes):
    dataset = datasets.load_dataset("mit-indoor", scenes, cache="none")
    assert dataset.name == "MIT67Scenes"
    assert names_of(dataset.train) == ["1.jpg", "2.jpg", "3.jpg"]
    assert dataset.class_names == dataset.class_ids == ["attic", "bar"]
    assert dataset.train.labels.tolist() == [1, 0, 1]
    assert dataset.test.labels.tolist() == [0, 1]
    assert (dataset.spec.image_size, dataset.spec.test_resize) == (224, 256)


def test_mit67_with_a_wrong_line(scenes):
    (scenes / "TrainImages.txt").write_text("bar\\1.jpg\n")
    with pytest.raises(UserError, match=r"TrainImages\.txt: expected lines class/file\.jpg"):
        datasets.load_dataset("MIT67Scenes", scenes)


def test_byte_order_marks_are_no_text(scenes, tmp_path):
    expected = datasets.load_dataset("MIT67Scenes", scenes, cache="none")
    content = (scenes / "TrainImages.txt").read_text()
    (scenes / "TrainImages.txt").write_text(content, encoding="utf-8-sig")
    (tmp_path / "classes").write_text("bar\nattic\n", encoding="utf-8-sig")
    dataset = datasets.load_dataset(
        "MIT67Scenes", scenes, cache="none", class_list=tmp_path / "classes"
    )
    assert dataset.train.images == expected.train.images
    assert dataset.class_ids == ["bar", "attic"]


def test_lists_that_are_no_text(scenes):
    (scenes / "TrainImages.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"TrainImages\.txt: not a text file"):
        datasets.load_dataset("MIT67Scenes", scenes)


@pytest.mark.parametrize("file", ["TrainImages.txt", "Images"])
def test_first_missing_file_is_named(scenes, file):
    (scenes / file).rename(scenes / "elsewhere")
    with pytest.raises(UsageError, match=f"{scenes}/{file} is missing"):
        datasets.check_dataset("MIT67Scenes", scenes)
