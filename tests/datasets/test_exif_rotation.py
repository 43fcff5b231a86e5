import json

import numpy as np
import pytest
from PIL import Image

import datasets

from .conftest import photo


@pytest.fixture
def root(tmp_path):
    """Portraits as phones store them: landscapes with a tag."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for i, name in enumerate(("train/a", "train/b", "test/a", "test/b")):
        path = tmp_path / "data" / name / f"{i}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(photo(60, 40, i)).save(path, exif=exif)
    return tmp_path / "data"


def load(root, **options):
    options = {"cache": "none", "cache_dir": root.parent / "cache"} | options
    return datasets.load_dataset("folder", root, image_size=32, **options)


def upright(i):
    image = Image.fromarray(photo(60, 40, i)).transpose(Image.Transpose.ROTATE_270)
    image = image.resize((37, round(60 * 37 / 40)), Image.Resampling.BILINEAR)
    left, top = 2, (image.height - 32) // 2
    return np.asarray(image.crop((left, top, left + 32, top + 32)), int)


@pytest.mark.parametrize("cache", ["none", "ram", "disk"])
def test_photographs_are_upright(root, cache):
    # One after the other, to see that a cache of one is none of the other.
    stored = load(root, cache=cache, exif_rotation=False)
    turned = load(root, cache=cache)
    assert (stored.spec.exif_rotation, turned.spec.exif_rotation) == (False, True)
    images, _ = turned.test_batches(2)[0]
    assert np.abs(images.astype(int) - [upright(2), upright(3)]).max() <= 1
    images, _ = stored.test_batches(2)[0]
    assert np.abs(images.astype(int) - [upright(2), upright(3)]).max() > 50
    assert turned.test.take(np.array([1])).exif_rotation
    train, _ = turned.train_batches(2, seed=0)[0]
    assert train.shape == (2, 32, 32, 3)


def test_the_papers_data_sets_are_read_as_then(flowers):
    assert not datasets.check_dataset("Flowers", flowers).exif_rotation


def test_statistics_are_kept_for_both(root):
    first = load(root).mean
    assert load(root, exif_rotation=False).mean == first
    (kept,) = (root.parent / "cache").glob("*.statistics.json")
    assert json.loads(kept.read_text())["mean"] == list(first)
