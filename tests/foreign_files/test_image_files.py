import contextlib
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from foreign_files import image_files
from utils import UserError

from ..datasets.conftest import photo


def save(path, image, **options):
    image.save(path, **options)
    return image_files.load_rgb(path)


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
    assert np.array_equal(image_files.load_rgb(tmp_path / "image.jpg"), photo(20, 16))


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
        image_files.load_rgb(path)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0" + bytes(50)])
def test_other_files_are_named(tmp_path, content):
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.jpg: cannot be read as an image"):
        image_files.load_rgb(path)


def test_other_formats_start_no_programs(tmp_path, monkeypatch):
    """Pillow hands EPS to Ghostscript, which runs what is in it."""
    trace = tmp_path / "trace"
    (tmp_path / "gs").write_text(f"#!/bin/sh\necho 10.0\ntouch {trace}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # what Pillow remembers of a search
    path = tmp_path / "a.jpg"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n%%EOF\n")
    for read in (image_files.load_rgb, image_files.image_size):
        with pytest.raises(UserError, match=r"a\.jpg: cannot be read as an image"):
            read(path)
    assert not trace.exists()
    with Image.open(path) as image, contextlib.suppress(OSError):
        image.load()
    assert trace.exists(), "the trap does not work"


@pytest.mark.parametrize("format", image_files.FORMATS)
def test_all_admitted_formats_are_read(tmp_path, format):
    Image.fromarray(photo(20, 16)).save(tmp_path / "image", format)
    assert image_files.load_rgb(tmp_path / "image").size == (20, 16)


def test_several_pictures_in_one_jpeg_are_read(tmp_path):
    pictures = [Image.fromarray(photo(20, 16, seed)) for seed in range(2)]
    pictures[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=pictures[1:])
    assert image_files.load_rgb(tmp_path / "a.jpg").size == (20, 16)


def test_missing_images_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.jpg: .*No such file"):
        image_files.load_rgb(tmp_path / "none.jpg")


@pytest.mark.parametrize("limit", [300, 150])  # Pillow warns above, and refuses above twice it
@pytest.mark.parametrize("warned", [True, False])
def test_decompression_bombs_are_refused(tmp_path, monkeypatch, limit, warned):
    Image.fromarray(photo(20, 16)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("error" if warned else "ignore")
        for read in (image_files.load_rgb, image_files.image_size):
            with pytest.raises(UserError, match=rf"bomb\.png: declares more than {limit} pixels"):
                read(tmp_path / "bomb.png")


def test_pillows_own_warnings_are_not_shown(tmp_path):
    rgb = Image.fromarray(photo(20, 16))
    rgb.quantize(4).save(tmp_path / "palette.png", transparency=b"\x80\xff\x00\x10")
    rgb.save(tmp_path / "bomb.png")
    code = f"""
from PIL import Image
from foreign_files import image_files
from utils import UserError
assert image_files.load_rgb({str(tmp_path / "palette.png")!r}).mode == "RGB"
Image.MAX_IMAGE_PIXELS = 300
try:
    image_files.load_rgb({str(tmp_path / "bomb.png")!r})
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
    for read in (image_files.load_rgb, image_files.image_size):
        with pytest.raises(UserError, match=rf"strip\.png: has {size[0]} x {size[1]} pix.*crop"):
            read(tmp_path / "strip.png")


def test_floating_point_images_are_refused(tmp_path):
    Image.fromarray(np.ones((16, 20), np.float32)).save(tmp_path / "float.tiff")
    for read in (image_files.load_rgb, image_files.image_size):
        with pytest.raises(UserError, match=r"float\.tiff: holds floating-point values.*8 or 16"):
            read(tmp_path / "float.tiff")
