import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from PIL import Image

from datasets.batches import rng, transforms
from datasets.batches.transforms import View
from foreign_files import image_files

from ...test_resizing import center_view, reference_resize
from ..conftest import photo


def draws(count, width, height, resize, crop):
    for i in range(count):
        generator = rng.generator(3, rng.AUGMENTATION, 0, i)
        yield transforms.draw_view(generator, width, height, resize, crop)


@pytest.fixture(scope="module")
def views():
    return list(draws(10_000, 640, 512, (512, 512), 448))


def test_flips_half_of_the_images(views):
    assert np.mean([view.flip for view in views]) == pytest.approx(0.5, abs=0.02)


def test_erases_half_of_the_images_independently_of_flipping(views):
    erased = np.array([view.erase is not None for view in views])
    flipped = np.array([view.flip for view in views])
    assert erased.mean() == pytest.approx(0.5, abs=0.02)
    assert (erased & flipped).mean() == pytest.approx(0.25, abs=0.02)


def test_erased_area_and_aspect_are_uniform(views):
    # In a square every rectangle fits, so nothing is redrawn.
    views = list(draws(6000, 512, 512, (512, 512), 448))
    widths, heights = np.array([v.erase[2:] for v in views if v.erase]).T
    # Sides lose their fraction of a pixel, which is spread evenly; so half a pixel is missing.
    widths, heights = widths + 0.5, heights + 0.5
    areas, aspects = widths * heights / 512**2, heights / widths
    assert scipy.stats.kstest(areas, scipy.stats.uniform(0.02, 0.28).cdf).pvalue > 0.01
    assert scipy.stats.kstest(aspects, scipy.stats.uniform(0.3, 1 / 0.3 - 0.3).cdf).pvalue > 0.01
    assert 0.3 * 0.98 < aspects.min() < 0.31
    assert 3.3 < aspects.max() < 1 / 0.3 * 1.02


def test_sides_of_erased_rectangles_are_truncated():
    class Draws:
        """Half of a random range each time: 16 % of the area and an aspect of 1.816…."""

        def uniform(self, low, high):
            return (low + high) / 2

        def integers(self, high):
            return high - 1

    # sqrt(0.16 · 10,000 / 1.81667) = 29.68, sqrt(0.16 · 10,000 · 1.81667) = 53.91
    assert transforms.draw_rectangle(Draws(), 100, 100) == (71, 47, 29, 53)


def test_erased_rectangles_lie_anywhere_in_the_resized_image():
    views = list(draws(6000, 640, 512, (512, 512), 448))
    rectangles = np.array([view.erase for view in views if view.erase])
    left, top, width, height = rectangles.T
    assert np.all((left >= 0) & (top >= 0) & (left + width <= 640) & (top + height <= 512))
    # (left + U) / (number of places) is uniform if left is uniform on its places.
    jitter = np.random.default_rng(0).random((2, len(left)))
    for start, length, whole, noise in (
        (left, width, 640, jitter[0]), (top, height, 512, jitter[1]),
    ):  # fmt: skip
        places = whole - length + 1
        assert scipy.stats.kstest((start + noise) / places, "uniform").pvalue > 0.01


def test_rectangles_that_do_not_fit_are_redrawn():
    # In an image of 4 : 1 the tall ones do not fit.
    views = list(draws(2000, 2048, 512, (512, 512), 448))
    rectangles = np.array([view.erase for view in views if view.erase])
    assert len(rectangles) == pytest.approx(1000, abs=100)
    assert rectangles[:, 3].max() <= 512
    assert np.all(rectangles[:, 1] + rectangles[:, 3] <= 512)


def test_crops_lie_anywhere(views):
    for axis, places in ((0, 640 - 448 + 1), (1, 512 - 448 + 1)):
        counts = np.bincount([view.crop[axis] for view in views], minlength=places)
        assert len(counts) == places
        assert scipy.stats.chisquare(counts).pvalue > 0.01


def test_smaller_side_is_uniform_in_its_range():
    sides = [min(v.size) for v in draws(6000, 640, 512, (256, 266), 224)]
    counts = np.bincount(sides)[256:]
    assert len(counts) == 11
    assert scipy.stats.chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize("size", [(640, 512), (300, 420)])
def test_training_view_is_resize_flip_erase_crop_in_this_order(size):
    image = Image.fromarray(photo(*size))
    whole = reference_resize(image, 256)
    height, width = whole.shape[:2]
    for i in range(40):
        generator = rng.generator(5, rng.AUGMENTATION, 0, i)
        view = transforms.draw_view(generator, *size, (256, 256), 224)
        actual = transforms.render_view(image, view, 224, generator).astype(int)
        expected = (whole[:, ::-1] if view.flip else whole).astype(int)
        erased = np.zeros((height, width), bool)
        if view.erase:
            left, top, w, h = view.erase
            erased[top : top + h, left : left + w] = True
        left, top = view.crop
        expected = expected[top : top + 224, left : left + 224]
        erased = erased[top : top + 224, left : left + 224]
        difference = np.abs(actual - expected)
        assert difference[~erased].max(initial=0) <= 1
        if erased.sum() > 100:
            assert difference[erased].mean() > 20


def test_noise_is_uniform_per_pixel_and_channel():
    image = Image.new("RGB", (64, 64), (128, 128, 128))
    view = View((64, 64), False, (0, 0, 64, 64), (0, 0))
    pixels = np.stack(
        [transforms.render_view(image, view, 64, np.random.default_rng(i)) for i in range(100, 140)]
    )
    counts = np.bincount(pixels.ravel(), minlength=256)
    assert scipy.stats.chisquare(counts).pvalue > 0.01
    red, green = pixels[..., 0].ravel(), pixels[..., 1].ravel()
    assert abs(np.corrcoef(red, green)[0, 1]) < 0.02


def test_images_smaller_than_the_crop_are_padded_by_reflection():
    image = Image.fromarray(photo(40, 30))
    pixels = np.asarray(image)
    expected = np.pad(pixels, ((9, 9), (4, 4), (0, 0)), mode="reflect")
    view = View((40, 30), False, None, (0, 0))
    actual = transforms.render_view(image, view, 48, np.random.default_rng(0))
    assert np.array_equal(actual, expected)
    assert np.array_equal(center_view(image, 30, 48), expected)
    flipped = View((40, 30), True, None, (0, 0))
    actual = transforms.render_view(image, flipped, 48, np.random.default_rng(0))
    assert np.array_equal(actual, expected[:, ::-1])


def test_padding_reflects_the_erased_rectangle():
    image = Image.new("RGB", (40, 30))
    view = View((40, 30), False, (0, 0, 40, 8), (0, 0))
    actual = transforms.render_view(image, view, 48, np.random.default_rng(0))
    # The image begins at row 9, and the noise reaches to row 16.
    assert actual[9:17].any(axis=(1, 2)).all()
    assert not actual[17:46].any()
    assert np.array_equal(actual[2:9], actual[16:9:-1])


@pytest.fixture
def small_images():
    return np.random.default_rng(0).integers(0, 256, (6, 9, 9, 3), dtype=np.uint8)


def test_warp_without_changes_is_exact(small_images):
    n = len(small_images)
    still = transforms.warp_batch(
        small_images, np.zeros(n, bool), np.zeros((n, 2)), np.ones((n, 2))
    )
    assert np.array_equal(still, small_images)
    mirrored = transforms.warp_batch(
        small_images, np.ones(n, bool), np.zeros((n, 2)), np.ones((n, 2))
    )
    assert np.array_equal(mirrored, small_images[:, :, ::-1])


def test_warp_is_bilinear_with_repeated_edges(small_images):
    n, side = small_images.shape[:2]
    random = np.random.default_rng(1)
    flip = np.arange(n) % 2 == 0
    shift, zoom = random.uniform(-3, 3, (n, 2)), random.uniform(0.75, 1.25, (n, 2))
    actual = transforms.warp_batch(small_images, flip, shift, zoom)
    center = (side - 1) / 2
    for i in range(n):
        rows, columns = (
            zoom[i, axis] * (np.arange(side) - center) + center + shift[i, axis] for axis in (0, 1)
        )
        grid = np.meshgrid(rows, columns, indexing="ij")
        for channel in range(3):
            expected = scipy.ndimage.map_coordinates(
                small_images[i, :, :, channel].astype(float), grid, order=1, mode="nearest"
            )
            if flip[i]:
                expected = expected[:, ::-1]
            assert np.abs(actual[i, :, :, channel] - expected).max() <= 0.501


def test_the_thinnest_images_admitted_can_be_erased(tmp_path):
    Image.new("RGB", (1, 100)).save(tmp_path / "strip.png")
    image = image_files.load_rgb(tmp_path / "strip.png")
    views = list(draws(40, *image.size, (64, 64), 56)) + list(draws(40, 500, 5, (64, 64), 56))
    for view in views:
        if view.erase:
            left, top, width, height = view.erase
            assert left + width <= view.size[0]
            assert top + height <= view.size[1]
    assert sum(view.erase is not None for view in views) > 20
