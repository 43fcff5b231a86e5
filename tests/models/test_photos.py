"""A dumped model takes photographs as they are: files, Pillow images and arrays of any size."""

import numpy as np
import pytest
from PIL import Image

import models
import resizing
from datasets.batches.pipeline import FilePipeline
from datasets.batches.split import Split
from foreign_files import image_files
from utils import UserError

from ..datasets.conftest import photo
from ..test_resizing import reference_resize

SIZES = [(60, 40), (37, 90), (24, 24), (200, 31)]
SIDE, RESIZE = 24, 28


def build(**preprocessing):
    return models.build_model(
        "simple",
        ["cat", "dog", "cow"],
        head=models.EmbeddingHead(np.eye(3)),
        preprocessing=models.Preprocessing((120.0,) * 3, (60.0,) * 3, **preprocessing),
        info={"loss": "inv_corr"},
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """As it is read from its file."""
    path = tmp_path_factory.mktemp("dump") / "m.keras"
    models.save_model(build(image_size=SIDE, test_resize=RESIZE, exif_rotation=True), path)
    return models.load_model(path)


@pytest.fixture
def photos(tmp_path):
    """Files of several sizes; the last is no image."""
    paths = []
    for i, size in enumerate(SIZES):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(photo(*size, seed=i)).save(paths[-1])
    (tmp_path / "bad.png").write_text("no image")
    return [*paths, tmp_path / "bad.png"]


@pytest.mark.parametrize("size", SIZES)
def test_preprocess_is_resize_then_centre_crop(model, tmp_path, size):
    pixels = photo(*size)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    seen = model.preprocess(pixels)
    assert seen.shape == (SIDE, SIDE, 3)
    assert seen.dtype == np.uint8
    np.testing.assert_array_equal(model.preprocess(image), seen)
    np.testing.assert_array_equal(model.preprocess(tmp_path / "a.png"), seen)
    np.testing.assert_array_equal(model.preprocess(str(tmp_path / "a.png")), seen)
    whole = reference_resize(image, RESIZE).astype(int)
    top, left = ((length - SIDE) // 2 for length in whole.shape[:2])
    assert np.abs(whole[top : top + SIDE, left : left + SIDE] - seen).max() <= 2


def test_preprocess_is_what_evaluation_sees(model, photos):
    paths = [str(path) for path in photos[:-1]]
    split = Split(paths, np.zeros(len(paths), np.int64))
    batches = FilePipeline(split, SIDE, (RESIZE, RESIZE), seed=0, train=False)
    images = np.empty((len(paths), SIDE, SIDE, 3), np.uint8)
    batches.fill(images, np.arange(len(paths)), epoch=0, start=0)
    np.testing.assert_array_equal(images, [model.preprocess(path) for path in paths])


def test_photographs_are_turned_upright_if_they_were_in_training(model, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo(60, 40)).save(tmp_path / "a.png", exif=exif)
    upright = np.rot90(photo(60, 40), k=-1)
    np.testing.assert_array_equal(model.preprocess(tmp_path / "a.png"), model.preprocess(upright))
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(model.preprocess(image), model.preprocess(upright))
    # Models dumped before say nothing of it.
    del (old := build(image_size=SIDE, test_resize=RESIZE)).info["exif_rotation"]
    np.testing.assert_array_equal(
        old.preprocess(tmp_path / "a.png"), model.preprocess(photo(60, 40))
    )


def test_pillow_images_of_other_modes_are_what_their_files_are(model, tmp_path):
    rgb = Image.fromarray(photo(60, 40))
    sixteen = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    transparent = rgb.convert("P")
    transparent.info["transparency"] = 3
    for image in (rgb.convert("L"), rgb.convert("RGBA"), sixteen, transparent):
        image.save(tmp_path / "a.png")
        np.testing.assert_array_equal(model.preprocess(image), model.preprocess(tmp_path / "a.png"))
    assert transparent.info["transparency"] == 3
    with pytest.raises(UserError, match="floating-point values, whose range is unknown"):
        model.preprocess(rgb.convert("F"))


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_files_are_classified_in_order(model, photos, batch_size):
    good = photos[:-1]
    seen = np.stack([model.preprocess(path) for path in good])
    expected_classes, expected = model.classify(seen)
    classes, scores = model.classify_files(good, batch_size=batch_size)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(classes, expected_classes)

    mixed = [good[0], photos[-1], *good[1:], photos[-1]]
    rows = list(model.score_files(mixed, batch_size=batch_size))
    assert [path for path, _ in rows] == mixed
    for path, row in rows:
        if path == photos[-1]:
            assert isinstance(row, UserError)
        else:
            np.testing.assert_allclose(row, expected[good.index(path)], rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match=r"bad\.png: cannot be read as an image"):
        model.classify_files(mixed, batch_size=batch_size)


def test_no_images_give_no_scores(model):
    for none in ([], np.zeros((0, SIDE, SIDE, 3), "uint8"), np.zeros((0, 50, 60, 3), "uint8")):
        for classify in (model.classify, model.classify_files):
            classes, scores = classify(none)
            assert classes.shape == (0,)
            assert scores.shape == (0, 3)


def test_a_single_path_is_a_file(model, photos):
    np.testing.assert_array_equal(
        model.classify_files(str(photos[0]))[1], model.classify_files([photos[0]])[1]
    )


def test_what_holds_nothing_is_classified_with_a_warning(model, tmp_path, caplog):
    path = tmp_path / "a.png"
    Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60)).save(path)
    assert model.classify_files([path])[1].shape == (1, 3)
    assert "a.png: nearly black: no value is above 15" in caplog.text


def test_decoded_images_of_any_size_are_classified(model):
    images = [photo(*size, seed=i) for i, size in enumerate(SIZES)]
    _, expected = model.classify(np.stack([model.preprocess(image) for image in images]))
    _, scores = model.classify(images)
    np.testing.assert_array_equal(scores, expected)
    _, scores = model.classify([Image.fromarray(image) for image in images])
    np.testing.assert_array_equal(scores, expected)
    _, scores = model.classify(images[0][np.newaxis])
    np.testing.assert_allclose(scores, expected[:1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 40, 40, 3), "float32"), r"uint8 RGB .*, not float32 \(40, 40, 3\)"),
        (np.zeros((40, 40, 3), "uint8"), r"write classify\(\[image\]\)"),
        ([np.zeros((40, 40), "uint8")], r"not uint8 \(40, 40\)"),
        (
            np.linspace(0, 1, 3 * SIDE**2).reshape(1, SIDE, SIDE, 3),
            "from 0 to 255, not from 0 to 1",
        ),
        (np.linspace(-2, 2, 3 * SIDE**2).reshape(1, SIDE, SIDE, 3), "not from -2 to 2: scale"),
        (np.zeros((2, SIDE, SIDE, 1), "uint8"), r"must be \(n, height, width, 3\), not \(2, 24"),
    ],
)
def test_what_is_no_image_is_refused(model, images, message):
    with pytest.raises(ValueError, match=message):
        model.classify(images)


def test_a_model_that_knows_no_size_says_so():
    with pytest.raises(ValueError, match="a Preprocessing with image_size"):
        build().preprocess(photo(60, 40))


def test_memory_of_an_image_is_counted_until_it_is_small(model, photos, monkeypatch):
    memory, crop, left = image_files._memory, resizing.center_view, []

    def cropped(*arguments):
        left.append(memory.left)
        return crop(*arguments)

    monkeypatch.setattr(resizing, "center_view", cropped)
    model.preprocess(photos[0])
    assert left == [memory.size - image_files._BYTES_PER_PIXEL * SIZES[0][0] * SIZES[0][1]]
    assert memory.left == memory.size
