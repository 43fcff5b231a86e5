"""Small data sets in the official layouts, written by the tests."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def shared(folder: str) -> Path:
    """A folder of the real data, or a skip."""
    if not (SHARED / folder).is_dir():
        pytest.skip(f"no real data at {SHARED / folder}")
    return SHARED / folder


def photo(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Something between noise and a gradient, so that resizing errors show."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int64)
    noise = rng.integers(-40, 41, (height, width, 3))
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def write_photo(path: Path, width: int, height: int, seed: int = 0, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(width, height, seed)).save(path, **options)


def write_pickle(path: Path, content) -> None:
    with open(path, "wb") as file:
        pickle.dump(content, file, protocol=2)


def cifar_batch(labels, label_key, seed=0, as_bytes=True) -> dict:
    data = np.random.default_rng(seed).integers(0, 256, (len(labels), 3072), dtype=np.uint8)
    batch = {"data": data, label_key: list(map(int, labels))}
    return {key.encode() if as_bytes else key: batch[key] for key in batch}


@pytest.fixture
def cifar_100(tmp_path):
    """Two training images and one test image of each class."""
    root = tmp_path / "cifar-100-python"
    root.mkdir()
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(100), 2))
    write_pickle(root / "train", cifar_batch(labels, "fine_labels", 1))
    write_pickle(root / "test", cifar_batch(np.arange(100), "fine_labels", 2))
    write_pickle(root / "meta", {b"fine_label_names": [b"name%d" % i for i in range(100)]})
    return root


@pytest.fixture
def cifar_10(tmp_path):
    """Text keys, and no file with names."""
    root = tmp_path / "cifar-10-batches-py"
    root.mkdir()
    for i in range(1, 6):
        batch = cifar_batch(np.arange(10), "labels", i, as_bytes=False)
        write_pickle(root / f"data_batch_{i}", batch)
    write_pickle(root / "test_batch", cifar_batch(np.arange(10), "labels", 6, as_bytes=False))
    return root


@pytest.fixture
def flowers(tmp_path, forked_reading):
    """Three classes; images 1 to 6 are for training, 7 to 9 for testing."""
    root = tmp_path / "flowers"
    root.mkdir()
    for i in range(1, 10):
        write_photo(root / "jpg" / f"image_{i:05}.jpg", 60 + i, 50 + 2 * i, seed=i)
    labels = np.array([[1, 2, 3, 3, 2, 1, 1, 2, 3]], np.uint8)
    scipy.io.savemat(root / "imagelabels.mat", {"labels": labels})
    splits = {"trnid": [[1, 2, 3]], "valid": [[6, 5, 4]], "tstid": [[7, 8, 9]]}
    scipy.io.savemat(root / "setid.mat", {k: np.array(v, np.uint16) for k, v in splits.items()})
    return root


def write_lines(path, lines):
    path.write_text("\n".join(lines))  # the last line does not end, as in MIT67


def write_birds(root, ids, labels, is_train, class_names):
    root.mkdir()
    paths = [f"{label}.Bird/{i} photo.jpg" for i, label in zip(ids, labels, strict=True)]
    for seed, path in enumerate(paths):
        write_photo(root / "images" / path, 60, 50 + seed, seed)
    for file, column in (
        ("images.txt", paths),
        ("image_class_labels.txt", labels),
        ("train_test_split.txt", is_train),
    ):
        pairs = zip(ids, column, strict=True)
        write_lines(root / file, [f"{image} {value}" for image, value in pairs])
    write_lines(root / "classes.txt", [f"{label} {name}" for label, name in class_names.items()])


@pytest.fixture
def cub(tmp_path):
    root = tmp_path / "CUB_200_2011"
    classes = {1: "001.Albatross", 2: "002.Tree Sparrow"}
    write_birds(root, range(1, 9), [1, 1, 1, 1, 2, 2, 2, 2], [1, 0, 1, 1, 1, 1, 0, 1], classes)
    return root


@pytest.fixture
def nab(tmp_path):
    root = tmp_path / "nabirds"
    ids = [f"0000139e-{i:04}" for i in range(6)]
    classes = {295: "Swan (Adult)", 1010: "Finch", 817: "Duck"}
    write_birds(root, ids, [1010, 295, 817, 1010, 295, 817], [1, 1, 1, 0, 0, 0], classes)
    return root


def write_cars(root, **changes):
    """Five cars of two models; the last two are for testing."""
    annotations = np.zeros((1, 5), [(name, object) for name in (
        "relative_im_path", "bbox_x1", "class", "test"
    )])  # fmt: skip
    for i in range(5):
        path = f"car_ims/{i + 1:06}.jpg"
        write_photo(root / path, 60, 50 + i, i)
        annotations[0, i] = (path, 7, 1 + i % 2, int(i >= 3))
    names = np.array([["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]], object)
    scipy.io.savemat(
        root / "cars_annos.mat", {"annotations": annotations, "class_names": names, **changes}
    )
    return root


@pytest.fixture
def scenes(tmp_path):
    lists = {
        "Train": ["bar/1.jpg", "attic/2.jpg", "bar/3.jpg"],
        "Test": ["attic/4.jpg", "bar/5.jpg"],
    }
    for part, lines in lists.items():
        for i, line in enumerate(lines):
            write_photo(tmp_path / "Images" / line, 60, 50 + i, i)
        write_lines(tmp_path / f"{part}Images.txt", lines)
    return tmp_path
