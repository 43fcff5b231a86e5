"""The augmentations of today's recipes: what they do to an image, always the same way."""

import numpy as np
import pytest
import scipy.stats
from PIL import Image, ImageOps

import datasets
from datasets.augmentation import Policy
from datasets.batches import crops, rng
from datasets.batches.trivial_augment import OPERATIONS, trivial_augment
from datasets.registry import resolve_augmentation
from datasets.sources.cifar import CIFAR_10
from datasets.sources.digits import DIGITS
from datasets.sources.flowers import FLOWERS
from utils import UsageError

from ..conftest import photo


def epochs_of(dataset, count=2, **options):
    """Images and labels of the first epochs."""
    batches = dataset.train_batches(4, seed=7, **options)
    result = []
    for _ in range(count):
        result += [np.concatenate(part) for part in zip(*batches, strict=True)]
        batches.epoch += 1
    return result


def assert_same(first, second):
    for array, other in zip(first, second, strict=True):
        assert np.array_equal(array, other)


# ------------------------------------------------------------------ the same every time


@pytest.mark.parametrize("flip", ["random", "alternating"])
@pytest.mark.parametrize("name", ["light", "strong"])
def test_photos_are_the_same_by_workers_cache_and_after_a_resume(flowers, name, flip):
    def load(cache, crop_scale):
        return datasets.load_dataset(
            "Flowers", flowers, image_size=24, cache=cache, cache_dir=flowers.parent / "cache",
            augmentation=Policy(name, flip=flip, crop_scale=crop_scale),
        )  # fmt: skip

    # The images' smaller sides are 52 to 66: some crops are of shrunk ones, or all, or none.
    for crop_scale in (0.8, 0.2, 0.05):
        plain = load("none", crop_scale)
        expected = epochs_of(plain, workers=1)
        assert not np.array_equal(expected[0], expected[2])
        assert_same(epochs_of(plain, workers=4), expected)
        for mode in ("ram", "disk"):
            assert_same(epochs_of(load(mode, crop_scale), workers=4), expected)
        assert_same(epochs_of(plain, 1, initial_epoch=1), expected[2:])


@pytest.mark.parametrize("flip", ["random", "alternating"])
@pytest.mark.parametrize("name", ["light", "strong"])
def test_small_images_are_the_same_by_workers_batch_size_and_after_a_resume(name, flip):
    dataset = datasets.load_dataset("digits-sub5", augmentation=Policy(name, flip=flip))
    expected = epochs_of(dataset, workers=1)
    assert_same(epochs_of(dataset, workers=4), expected)
    assert_same(epochs_of(dataset, 1, initial_epoch=1), expected[2:])
    joined = np.concatenate([x for x, _ in dataset.train_batches(300, seed=7)])
    assert np.array_equal(joined, expected[0])


def test_a_cache_holds_photos_no_larger_than_crops_need(flowers):
    policy = Policy("light", crop_scale=0.8)
    options = {"image_size": 24, "cache": "ram"}
    dataset = datasets.load_dataset("Flowers", flowers, augmentation=policy, **options)
    # 24 / sqrt(0.8 · 3/4) = 30.98
    assert {min(dataset.train.store[i].shape[:2]) for i in range(6)} == {31}
    dataset = datasets.load_dataset(
        "Flowers", flowers, augmentation=Policy("light", crop_scale=0.01), **options
    )
    assert dataset.train.store[0].shape == (52, 61, 3)  # as decoded


@pytest.mark.parametrize("name", ["Flowers", "digits-sub5"])
def test_none_gives_what_a_test_would(name, flowers):
    options = {} if name.startswith("digits") else {"data_root": flowers, "image_size": 24}
    for cache in ("none", "ram"):
        dataset = datasets.load_dataset(name, cache=cache, augmentation=Policy("none"), **options)
        batches = dataset.train_batches(4, seed=7)
        images = np.concatenate([x for x, _ in batches])
        samples = batches._pipeline.order(0)
        dataset.test = dataset.train
        dataset.test.store = None
        plain = np.concatenate([x for x, _ in dataset.test_batches(4)])[samples]
        # Cached images are resized before they are cropped, with other roundings.
        assert np.abs(images.astype(int) - plain).max() <= (0 if cache == "none" else 2)


# ------------------------------------------------------------------ flips


def views_of(flip, repeats=1, epochs=2):
    """(epochs · repeats, images): whether each image of a made-up data set was mirrored."""
    dataset = datasets.load_dataset(
        "digits-sub5", train_repeats=repeats,
        augmentation=Policy("light", flip=flip, crop_shift=0, cutout=0),
    )  # fmt: skip
    images = np.zeros((len(dataset.train), 8, 8, 3), np.uint8)
    images[:, :, 0] = 1  # the left column
    images[:, 0, 3, 0] = np.arange(len(images))  # and the image's number
    images[:, 0, 4, 0] = np.arange(len(images))
    dataset.train.images = images
    batches = dataset.train_batches(7, seed=3)
    seen = []
    for _ in range(epochs):
        pixels = np.concatenate([x for x, _ in batches])
        mirrored = pixels[:, 1, 7, 0] == 1
        order = np.argsort(pixels[:, 0, 3, 0], kind="stable")
        seen.append(mirrored[order].reshape(len(images), repeats).T)
        batches.epoch += 1
    return np.concatenate(seen)


def test_flips():
    assert not views_of("none").any()
    assert 0.35 < views_of("random", epochs=10).mean() < 0.65
    alternating = views_of("alternating", epochs=3)
    assert 0 < alternating[0].sum() < alternating.shape[1]
    assert np.array_equal(alternating[1], ~alternating[0])
    assert np.array_equal(alternating[2], alternating[0])


def test_alternating_flips_count_the_repeats_of_an_epoch():
    for repeats in (2, 3):
        mirrored = views_of("alternating", repeats, epochs=2)
        # In 2 · repeats views each image is mirrored every second time.
        assert np.all(mirrored.sum(axis=0) == repeats)


# ------------------------------------------------------------------ crops


def test_random_resized_crops_have_uniform_areas_and_ratios():
    boxes = np.array(
        [
            crops.draw_resized_crop(rng.generator(1, rng.AUGMENTATION, 0, i), 600, 600, 0.2)
            for i in range(4000)
        ]
    )
    left, top, right, bottom = boxes.T
    assert boxes.min() >= 0
    assert boxes.max() <= 600
    width, height = right - left, bottom - top
    ratio = width / height
    assert 0.74 < ratio.min() < 0.76
    assert 1.32 < ratio.max() < 1.35
    # Up to 3/4 of the image every ratio fits, so nothing is drawn again.
    area = width * height / 600**2
    area = area[area < 0.7]
    assert scipy.stats.kstest(area, scipy.stats.uniform(0.2, 0.5).cdf).pvalue > 0.01
    small = (width < 400) & (width > 300)
    places = left[small] / (600 - width[small])
    assert scipy.stats.kstest(places, "uniform").pvalue > 0.01


@pytest.mark.parametrize(("size", "expected"), [((100, 10), (13, 10)), ((1, 100), (1, 1))])
def test_of_long_images_the_middle_is_cropped(size, expected):
    left, top, right, bottom = crops.draw_resized_crop(np.random.default_rng(0), *size, 0.99)
    assert (right - left, bottom - top) == expected
    assert (left, top) == ((size[0] - expected[0]) // 2, (size[1] - expected[1]) // 2)


def test_a_resized_crop_is_the_box_resized():
    pixels = photo(60, 50)
    box = (7, 3, 43, 48)
    expected = Image.fromarray(pixels[3:48, 7:43]).resize((24, 24), Image.Resampling.BILINEAR)
    for image in (pixels, Image.fromarray(pixels)):
        assert np.array_equal(crops.resized_crop(image, box, 24), expected)


def test_shifts_are_those_of_a_padded_image():
    images = np.random.default_rng(0).integers(0, 256, (50, 9, 9, 3), dtype=np.uint8)
    shift = np.random.default_rng(1).integers(-8, 9, (50, 2))
    flip = np.arange(50) % 3 == 0
    actual = crops.shift_batch(images, shift, flip)
    for i in range(50):
        padded = np.pad(images[i], ((8, 8), (8, 8), (0, 0)), mode="reflect")
        top, left = shift[i] + 8
        expected = padded[top : top + 9, left : left + 9]
        assert np.array_equal(actual[i], expected[:, ::-1] if flip[i] else expected)


def test_cutout_is_a_square_cut_at_the_edges():
    images = np.zeros((3, 10, 10, 3), np.uint8)
    crops.cut_out(images, np.array([[5, 5], [0, 9], [9, 0]]), 4, np.array([1, 2, 3], np.uint8))
    expected = np.zeros((3, 10, 10), np.uint8)
    expected[0, 3:7, 3:7] = 1
    expected[1, :2, 7:] = 1
    expected[2, 7:, :2] = 1
    assert np.array_equal(images, expected[..., None] * np.array([1, 2, 3]))


# ------------------------------------------------------------------ TrivialAugment


def test_every_operation_keeps_the_form_and_changes_something():
    image = Image.fromarray(photo(40, 30) // 2 + 40)
    number = {name: (i + 0.5) / len(OPERATIONS) for i, name in enumerate(OPERATIONS)}
    for name, place in number.items():
        results = {}
        for strength in (0.0, 0.5, 0.999):
            for sign in (0.2, 0.7):
                result = trivial_augment(image, place, strength, sign)
                assert (result.mode, result.size) == ("RGB", image.size)
                results[strength, sign] = np.asarray(result).tobytes()
        if name in ("autocontrast", "equalize"):
            assert len(set(results.values())) == 1
            assert results[0.0, 0.2] != image.tobytes()
            continue
        if name != "solarize":  # whose weakest still inverts 255
            assert results[0.0, 0.2] == image.tobytes(), name
        assert (results[0.999, 0.7] != image.tobytes()) == (name != "identity"), name
        signed = OPERATIONS[name][1]
        assert (results[0.5, 0.2] != results[0.5, 0.7]) == signed, name


def test_strengths_are_those_of_the_published_table():
    image = Image.fromarray(photo(100, 80))

    def strongest(name):
        place = (list(OPERATIONS).index(name) + 0.5) / len(OPERATIONS)
        return trivial_augment(image, place, 0.999, 0.7)

    pixels = np.asarray(image)
    assert strongest("rotate") == image.rotate(135)
    assert np.array_equal(np.asarray(strongest("translate_x"))[:, :-32], pixels[:, 32:])
    assert np.array_equal(np.asarray(strongest("translate_y"))[:-32], pixels[32:])
    assert not np.asarray(strongest("translate_y"))[-32:].any()
    assert strongest("posterize") == ImageOps.posterize(image, 2)
    assert strongest("solarize") == ImageOps.invert(image)
    assert np.abs(np.asarray(strongest("brightness")) - np.minimum(255, 1.99 * pixels)).max() <= 1


# ------------------------------------------------------------------ flags


def test_defaults_follow_the_kind_and_size_of_images():
    assert resolve_augmentation(None, FLOWERS, 448) is None
    assert resolve_augmentation(Policy("paper"), FLOWERS, 448) is None
    assert resolve_augmentation(Policy("light"), FLOWERS, 448) == Policy(
        "light", "random", 0.4, 0.0
    )
    assert resolve_augmentation(Policy("strong"), FLOWERS, 448) == Policy(
        "strong", "random", 0.4, 0.25
    )
    expected = Policy("light", "random", crop_shift=4, cutout=12)
    assert resolve_augmentation(Policy("light"), CIFAR_10, 32) == expected
    assert resolve_augmentation(Policy("strong"), DIGITS, 8).flip == "none"
    assert resolve_augmentation(
        Policy("light", flip="alternating", cutout=0), CIFAR_10, 32
    ) == Policy("light", "alternating", crop_shift=4, cutout=0)


@pytest.mark.parametrize(
    ("policy", "info", "message"),
    [
        (Policy("paper", flip="none"), FLOWERS, "--flip: does nothing with --augmentation paper"),
        (Policy("none", cutout=3), CIFAR_10, "--cutout: does nothing with --augmentation none"),
        (Policy("light", cutout=3), FLOWERS, "--cutout: is for small images; .* have --erase"),
        (Policy("light", erase=0.1), CIFAR_10, "--erase: is for photos; .* have --cutout"),
        (Policy("light", crop_shift=32), CIFAR_10, "--crop_shift 32: expected less than the 32"),
    ],
)
def test_parameters_that_do_nothing_are_refused(policy, info, message):
    with pytest.raises(UsageError, match=message):
        resolve_augmentation(policy, info, 32)
