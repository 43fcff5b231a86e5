import contextlib
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from PIL import EpsImagePlugin, Image

from datasets.batches import rng, transforms
from datasets.batches.transforms import View
from utils import UserError

from ..conftest import photo


def draws(count, width, height, resize, crop):
    for i in range(count):
        generator = rng.generator(3, rng.AUGMENTATION, 0, i)
        yield transforms.draw_view(generator, width, height, resize, crop)


@pytest.fixture(scope="module")
def views():
    return list(draws(10_000, 640, 512, (512, 512), 448))


def center_view(image, smaller, crop):
    return transforms.center_view(image, transforms.resized_size(*image.size, smaller), crop)


def reference_resize(image, smaller_side):
    """The original's order: the whole image is resized first.

    Columns first: until version 13 Pillow always did so, now not with tall images.
    """
    width, height = image.size
    if width < height:
        size = (smaller_side, round(height * smaller_side / width))
    else:
        size = (round(width * smaller_side / height), smaller_side)
    columns_done = image.resize((size[0], image.height), Image.Resampling.BILINEAR)
    return np.asarray(columns_done.resize(size, Image.Resampling.BILINEAR))


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
    areas, aspects = widths * heights / 512**2, heights / widths
    assert scipy.stats.kstest(areas, scipy.stats.uniform(0.02, 0.28).cdf).pvalue > 0.01
    assert scipy.stats.kstest(aspects, scipy.stats.uniform(0.3, 3.03).cdf).pvalue > 0.01
    assert 0.3 * 0.98 < aspects.min() < 0.31
    assert 3.3 < aspects.max() < 3.33 * 1.02


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


def test_longer_side_is_rounded_half_to_even():
    assert transforms.resized_size(100, 250, 5) == (5, 12)
    assert transforms.resized_size(350, 100, 5) == (18, 5)


@pytest.mark.parametrize("size", [(700, 500), (500, 701), (333, 1000), (90, 70), (1500, 1999)])
@pytest.mark.parametrize(("smaller", "crop"), [(512, 448), (256, 224), (73, 64)])
def test_test_view_is_resize_then_centre_crop(size, smaller, crop):
    image = Image.fromarray(photo(*size))
    whole = reference_resize(image, smaller)
    top, left = (whole.shape[0] - crop) // 2, (whole.shape[1] - crop) // 2
    expected = whole[top : top + crop, left : left + crop].astype(int)
    difference = np.abs(center_view(image, smaller, crop) - expected)
    assert difference.max() <= 1
    assert difference.mean() <= 0.1


@pytest.mark.parametrize("size", [(640, 512), (512, 700), (300, 300)])
def test_test_view_agrees_with_the_installed_pillow(size):
    image = Image.fromarray(photo(*size))
    width, height = transforms.resized_size(*size, 256)
    left, top = (width - 224) // 2, (height - 224) // 2
    whole = image.resize((width, height), Image.Resampling.BILINEAR)
    expected = np.asarray(whole.crop((left, top, left + 224, top + 224)), int)
    difference = np.abs(center_view(image, 256, 224) - expected)
    assert difference.max() <= 1
    assert difference.mean() <= 0.1


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


def save(path, image, **options):
    image.save(path, **options)
    return transforms.load_rgb(path)


def test_all_kinds_of_images_load_as_rgb(tmp_path):
    pixels = photo(20, 16)
    rgb = Image.fromarray(pixels)
    grey = np.asarray(rgb.convert("L"))
    as_rgb = np.repeat(grey[..., None], 3, axis=-1)

    assert np.array_equal(save(tmp_path / "rgb.png", rgb), pixels)
    assert np.array_equal(save(tmp_path / "grey.png", rgb.convert("L")), as_rgb)
    sixteen = Image.fromarray(grey.astype(np.uint16) * 257)
    assert np.array_equal(save(tmp_path / "sixteen.png", sixteen), as_rgb)
    alpha = rgb.copy()
    alpha.putalpha(Image.fromarray(grey))
    assert np.array_equal(save(tmp_path / "alpha.png", alpha), pixels)
    palette = save(tmp_path / "palette.png", rgb.quantize(8))
    assert np.array_equal(palette, rgb.quantize(8).convert("RGB"))
    # Uniform colour, as JPEG blurs the noise, and colours differently in CMYK.
    brown = Image.new("RGB", (20, 16), (150, 90, 30))
    cmyk = save(tmp_path / "cmyk.jpg", brown.convert("CMYK"), quality=95)
    assert np.abs(np.asarray(cmyk, int) - (150, 90, 30)).max() <= 3
    bilevel = save(tmp_path / "bilevel.png", rgb.convert("1"))
    assert bilevel.mode == "RGB"
    assert set(np.unique(bilevel)) <= {0, 255}


def test_content_decides_not_the_extension(tmp_path):
    Image.fromarray(photo(20, 16)).save(tmp_path / "image.jpg", format="PNG")
    assert np.array_equal(transforms.load_rgb(tmp_path / "image.jpg"), photo(20, 16))


def test_exif_rotation_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = save(tmp_path / "rotated.jpg", Image.fromarray(photo(20, 16)), exif=exif)
    assert image.size == (20, 16)


def test_truncated_images_are_named(tmp_path):
    path = tmp_path / "cut.jpg"
    Image.fromarray(photo(200, 160)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"cut\.jpg: cannot be read as an image"):
        transforms.load_rgb(path)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0" + bytes(50)])
def test_other_files_are_named(tmp_path, content):
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.jpg: cannot be read as an image"):
        transforms.load_rgb(path)


def test_other_formats_start_no_programs(tmp_path, monkeypatch):
    """Pillow hands EPS to Ghostscript, which runs what is in it."""
    trace = tmp_path / "trace"
    (tmp_path / "gs").write_text(f"#!/bin/sh\necho 10.0\ntouch {trace}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # what Pillow remembers of a search
    path = tmp_path / "a.jpg"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n%%EOF\n")
    for read in (transforms.load_rgb, transforms.image_size):
        with pytest.raises(UserError, match=r"a\.jpg: cannot be read as an image"):
            read(path)
    assert not trace.exists()
    with Image.open(path) as image, contextlib.suppress(OSError):
        image.load()
    assert trace.exists(), "the trap does not work"


@pytest.mark.parametrize("format", transforms.FORMATS)
def test_all_admitted_formats_are_read(tmp_path, format):
    Image.fromarray(photo(20, 16)).save(tmp_path / "image", format)
    assert transforms.load_rgb(tmp_path / "image").size == (20, 16)


def test_several_pictures_in_one_jpeg_are_read(tmp_path):
    pictures = [Image.fromarray(photo(20, 16, seed)) for seed in range(2)]
    pictures[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=pictures[1:])
    assert transforms.load_rgb(tmp_path / "a.jpg").size == (20, 16)


def test_missing_images_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.jpg: .*No such file"):
        transforms.load_rgb(tmp_path / "none.jpg")


@pytest.mark.parametrize("limit", [300, 150])  # Pillow warns above, and refuses above twice it
@pytest.mark.parametrize("warned", [True, False])
def test_decompression_bombs_are_refused(tmp_path, monkeypatch, limit, warned):
    Image.fromarray(photo(20, 16)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("error" if warned else "ignore")
        for read in (transforms.load_rgb, transforms.image_size):
            with pytest.raises(UserError, match=rf"bomb\.png: declares more than {limit} pixels"):
                read(tmp_path / "bomb.png")


def test_pillows_own_warnings_are_not_shown(tmp_path):
    rgb = Image.fromarray(photo(20, 16))
    rgb.quantize(4).save(tmp_path / "palette.png", transparency=b"\x80\xff\x00\x10")
    rgb.save(tmp_path / "bomb.png")
    code = f"""
from PIL import Image
from datasets.batches import transforms
from utils import UserError
assert transforms.load_rgb({str(tmp_path / "palette.png")!r}).mode == "RGB"
Image.MAX_IMAGE_PIXELS = 300
try:
    transforms.load_rgb({str(tmp_path / "bomb.png")!r})
except UserError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("refused\n", "")


def test_transparent_palettes_keep_their_colours(tmp_path):
    palette = Image.fromarray(photo(20, 16)).quantize(4)
    loaded = save(tmp_path / "palette.png", palette, transparency=b"\x80\xff\x00\x10")
    assert np.array_equal(loaded, palette.convert("RGB"))


@pytest.mark.parametrize("size", [(1, 101), (505, 5)])
def test_thin_strips_are_refused_by_their_header(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "strip.png")
    for read in (transforms.load_rgb, transforms.image_size):
        with pytest.raises(UserError, match=rf"strip\.png: has {size[0]} x {size[1]} pix.*crop"):
            read(tmp_path / "strip.png")


def test_the_thinnest_images_admitted_can_be_erased(tmp_path):
    Image.new("RGB", (1, 100)).save(tmp_path / "strip.png")
    image = transforms.load_rgb(tmp_path / "strip.png")
    views = list(draws(40, *image.size, (64, 64), 56)) + list(draws(40, 500, 5, (64, 64), 56))
    for view in views:
        if view.erase:
            left, top, width, height = view.erase
            assert left + width <= view.size[0]
            assert top + height <= view.size[1]
    assert sum(view.erase is not None for view in views) > 20


def test_floating_point_images_are_refused(tmp_path):
    Image.fromarray(np.ones((16, 20), np.float32)).save(tmp_path / "float.tiff")
    for read in (transforms.load_rgb, transforms.image_size):
        with pytest.raises(UserError, match=r"float\.tiff: holds floating-point values.*8 or 16"):
            read(tmp_path / "float.tiff")
