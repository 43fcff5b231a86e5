import numpy as np
import pytest
from PIL import Image

import datasets

from .conftest import photo, write_photo


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def load(root, **options):
    options = {"cache": "none", "cache_dir": root.parent / "cache", "test_fraction": 0.5} | options
    return datasets.load_dataset("folder", root, image_size=28, **options)


def test_a_constant_channel_is_named_and_trained(root, caplog):
    for i in range(8):
        pixels = photo(40, 36, i)
        pixels[..., 2] = 7
        write(root / "ab"[i % 2] / f"{i}.png", pixels)
    dataset = load(root)
    assert dataset.mean[2] == 7
    assert dataset.std[2] == 1
    assert min(dataset.std[:2]) > 30
    assert "folder: blue is (nearly) the same in all pixels of the training images" in caplog.text
    assert len(caplog.records) == 1
    # The statistics that were kept say the same.
    caplog.clear()
    assert load(root).std == dataset.std
    assert "blue is (nearly) the same" in caplog.text


def test_images_that_hold_nothing_are_named(root, caplog):
    for i in range(8):
        write_photo(root / "ab"[i % 2] / f"{i}.png", 40, 36, i)
    write(root / "a" / "white.png", np.full((36, 40, 3), 255, np.uint8))
    write(root / "b" / "dark.png", photo(40, 36) // 16)
    dataset = load(root, check_files=False)
    bad, doubtful = dataset.check_images()
    assert bad == []
    assert sorted(line.rpartition("/")[2] for line in doubtful) == [
        "dark.png: nearly black: no value is above 15 of 255; values of another range than the "
        "format's, as 12 bits in 16 or 0 to 1, have to be scaled up",
        "white.png: all pixels have the value 255, 255, 255",
    ]
    for _ in range(2):  # computed, and kept
        caplog.clear()
        load(root, test_fraction=0.1)
        assert "folder: 2 training images are of one colour or nearly black, first" in caplog.text


def test_values_of_another_range_are_named(root, caplog):
    for i in range(4):
        write(root / "ab"[i % 2] / f"{i}.png", photo(40, 36, i) // 5)
    for check in (lambda: load(root), load(root, check_files=False).check_images):
        caplog.clear()
        check()
        assert "no value of the training images is above 51 of 255" in caplog.text
        assert len(caplog.records) == 1
