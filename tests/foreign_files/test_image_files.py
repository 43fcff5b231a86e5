import contextlib
import os
import struct
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageOps, PngImagePlugin, TiffImagePlugin

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


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Four areas, which no turn confuses.
    upright = Image.new("RGB", (32, 24), (250, 0, 0))
    for corner, colour in (((16, 0), (0, 250, 0)), ((0, 12), (0, 0, 250)), ((16, 12), (0, 0, 0))):
        upright.paste(colour, (*corner, corner[0] + 16, corner[1] + 12))
    path = tmp_path / f"image.{suffix}"
    upright.save(path, exif=exif, quality=95, **({"lossless": True} if suffix == "webp" else {}))
    stored = image_files.load_rgb(path)
    assert stored.size == image_files.image_size(path) == (32, 24)
    turned = image_files.load_rgb(path, exif_rotation=True)
    expected = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    assert np.array_equal(turned, expected)
    assert image_files.image_size(path, exif_rotation=True) == expected.size
    if orientation == 6:
        assert turned.size == (24, 32)
        # The left lower corner, blue, comes to the left upper one.
        assert turned.getpixel((4, 4))[2] > 200 > turned.getpixel((4, 4))[0]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_data_are_ignored(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(photo(20, 16)).save(path, exif=b"Exif\0\0MM\0*\xff\xff\xff\xffjunk")
    assert image_files.load_rgb(path, exif_rotation=True).size == (20, 16)


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
    reason = "an empty file" if not content else "expected JPEG, PNG, BMP, GIF, PPM, TIFF or WEBP"
    with pytest.raises(UserError) as error:
        image_files.load_rgb(path)
    assert str(error.value) == f"{path}: cannot be read as an image ({reason})"


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


def tiff(path, values, **tags):
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        ifd[int(tag[1:])] = value
    Image.fromarray(values).save(path, tiffinfo=ifd)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.ones((16, 20), np.float32), "floating-point values"),
        (np.arange(320, dtype=np.int32).reshape(16, 20) % 256, "signed or 32-bit integers"),
        (np.full((16, 20), 70_000, np.int32), "signed or 32-bit integers"),
    ],
)
def test_values_of_unknown_range_are_refused(tmp_path, values, kind):
    tiff(tmp_path / "a.tiff", values)
    for read in (image_files.load_rgb, image_files.image_size):
        with pytest.raises(UserError, match=rf"a\.tiff: holds .*{kind}, whose range.*8 or 16"):
            read(tmp_path / "a.tiff")


def test_signed_bytes_are_refused(tmp_path):
    path = tmp_path / "a.tiff"
    tiff(path, photo(20, 16)[..., 0], t339=1)
    content = path.read_bytes()
    entry = content.index((339).to_bytes(2, "little"))
    path.write_bytes(content[: entry + 8] + b"\2" + content[entry + 9 :])
    with pytest.raises(UserError, match="holds signed or floating-point values"):
        image_files.load_rgb(path)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("most", [255, 4095])
def test_few_values_of_16_bits_are_doubtful(tmp_path, suffix, most):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.linspace(0, most, 320).reshape(16, 20).astype(np.uint16)).save(path)
    extrema = image_files.load_rgb(path).getextrema()
    assert extrema == ((0, most // 256),) * 3
    assert image_files.doubtful(extrema)
    Image.fromarray(np.linspace(0, 65535, 320).reshape(16, 20).astype(np.uint16)).save(path)
    assert np.asarray(image_files.load_rgb(path)).max() == 255


def test_more_than_8_bits_are_scaled_as_the_format_says(tmp_path):
    grey = photo(20, 16)[..., 0]
    expected = np.repeat(grey[..., None], 3, axis=-1)
    # 12 bits in a portable grey map, whose head says so.
    twelve = (grey.astype(np.uint16) << 4).astype(">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 20 16 4095\n" + twelve.tobytes())
    assert np.abs(np.asarray(image_files.load_rgb(tmp_path / "a.pgm"), int) - expected).max() <= 1
    # White is 0.
    path = tmp_path / "a.tiff"
    tiff(path, (grey.astype(np.uint16) << 8), t262=0)
    assert np.array_equal(image_files.load_rgb(path), 255 - expected)
    # Two samples of 12 bits take three bytes.
    pairs = (grey.astype(np.uint32) << 4).reshape(-1, 2)
    packed = (pairs[:, 0] << 12 | pairs[:, 1]).astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:]
    tags = {256: 20, 257: 16, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 16, 279: 480}
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", 488) + packed.tobytes() + directory)
    assert np.array_equal(image_files.load_rgb(path), expected)


def test_doubtful_images():
    assert image_files.doubtful([(3, 250), (0, 9), (0, 9)]) is None
    assert image_files.doubtful([(70, 70)] * 3) == "all pixels have the value 70, 70, 70"
    black = image_files.doubtful([(0, 0)] * 3)  # 8 bits in 16, for example
    assert black.startswith("all pixels have the value 0, 0, 0; values of another range than")
    assert image_files.doubtful([(0, 15), (0, 3), (0, 9)]).startswith("nearly black")


def test_photographs_of_200_million_pixels(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    Image.fromarray(photo(200, 160)).save(path)
    monkeypatch.setattr(image_files, "_MANY_PIXELS", 1000)
    assert image_files.load_rgb(path).size == (200, 160)
    Image.new("RGB", (200, 160)).save(path)
    with pytest.raises(UserError, match=r"declares 32,000 pixels in [0-9]+ bytes, as no photog"):
        image_files.image_size(path)
    assert Image.MAX_IMAGE_PIXELS >= 200_000_000


def test_large_profiles_and_descriptions(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", "x" * 3_000_000, zip=True)
    profile = np.random.default_rng(0).bytes(2_000_000)
    image = Image.fromarray(photo(20, 16))
    image.save(tmp_path / "a.png", pnginfo=text, icc_profile=profile)
    assert np.array_equal(image_files.load_rgb(tmp_path / "a.png"), photo(20, 16))


def test_heic_is_named(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50))
    with pytest.raises(UserError, match=r"a\.jpg: is a HEIC .* convert it to JPEG"):
        image_files.image_size(path)


def webp_head(kind, width, height):
    sizes = {
        b"VP8X": bytes(8) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"),
        b"VP8 ": bytes(7) + b"\x9d\x01\x2a" + struct.pack("<HH", width, height),
        b"VP8L": bytes(4) + b"\x2f" + (width - 1 | (height - 1) << 14).to_bytes(4, "little"),
    }
    return b"RIFF\xff\0\0\0WEBP" + kind + sizes[kind] + bytes(100)


@pytest.mark.parametrize("kind", [b"VP8X", b"VP8 ", b"VP8L"])
def test_a_webp_is_refused_before_its_canvas_is_made(tmp_path, monkeypatch, kind):
    (tmp_path / "a.webp").write_bytes(webp_head(kind, 15000, 14000))
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(UserError, match=r"a\.webp: declares 210,0[0-9]{2},[0-9]{3} pixels in 1"):
        image_files.image_size(tmp_path / "a.webp")


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"x"}])
def test_the_size_of_a_webp_is_that_of_its_picture(tmp_path, monkeypatch, options):
    path = tmp_path / "a.webp"
    Image.fromarray(photo(300, 20)).save(path, **options)
    checked = []
    monkeypatch.setattr(image_files, "_check_size", lambda _, *size: checked.append(size))
    assert image_files.image_size(path) == (300, 20)
    assert checked == [(300, 20)] * 2


def test_a_huge_tile_is_refused_undecoded(tmp_path):
    path = tmp_path / "a.tif"
    # Sides, bits, LZW, black is 0, sides of a tile, and where it is.
    tags = {256: 64, 257: 64, 258: 8, 259: 5, 262: 1, 322: 40000, 323: 40000, 324: 8, 325: 100}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path.write_bytes(b"II*\0" + struct.pack("<I100xH", 108, len(tags)) + entries + bytes(4))
    with pytest.raises(UserError, match=r"a\.tif: declares a tile of 40000 x 40000 pixels"):
        image_files.load_rgb(path)


def test_a_jpeg_of_thousands_of_scans_is_refused_undecoded(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(photo(64, 48)).save(path, progressive=True)
    assert image_files.load_rgb(path).size == (64, 48)
    content = path.read_bytes()
    last = content.rindex(b"\xff\xda")
    path.write_bytes(content[:-2] + 3000 * content[last:-2] + content[-2:])
    with pytest.raises(UserError, match=r"a\.jpg: is a JPEG of 30[0-9]+ scans, expected at most"):
        image_files.load_rgb(path)


def test_images_are_decoded_at_once_as_memory_allows(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(photo(64, 48)).save(path)
    memory = image_files._Memory(image_files._BYTES_PER_PIXEL * 64 * 48 * 2)
    monkeypatch.setattr(image_files, "_memory", memory)
    decode, left = image_files._to_rgb, []

    def to_rgb(image):
        left.append(memory.left)
        time.sleep(0.01)
        return decode(image)

    monkeypatch.setattr(image_files, "_to_rgb", to_rgb)
    with ThreadPoolExecutor(6) as threads:
        images = list(threads.map(image_files.load_rgb, [path] * 12))
    assert all(image.size == (64, 48) for image in images)
    assert min(left) == 0  # two at once, and never three
    assert memory.left == memory.size
    memory.size = memory.left = 10  # a larger image alone
    assert image_files.load_rgb(path).size == (64, 48)
