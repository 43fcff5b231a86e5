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
def flowers(tmp_path):
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
