import hashlib
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import datasets
from datasets.augmentation import Policy
from datasets.batches import cache, parallel
from foreign_files import image_files
from utils import UsageError, UserError

from ..conftest import write_photo


def load(root, mode, name="Flowers", **options):
    options = {"image_size": 32, "cache_dir": root.parent / "cache"} | options
    return datasets.load_dataset(name, root, cache=mode, **options)


def all_images(dataset, epochs=2):
    batches = [
        dataset.train_batches(3, seed=1, workers=3, initial_epoch=epoch) for epoch in range(epochs)
    ]
    return np.concatenate(
        [images for part in (*batches, dataset.test_batches(3)) for images, _ in part]
    )


@pytest.mark.parametrize("mode", ["ram", "disk"])
def test_cached_images_are_the_same(flowers, mode):
    plain = all_images(load(flowers, "none"), 6).astype(int)
    dataset = load(flowers, mode)
    assert dataset.cache == mode
    difference = np.abs(all_images(dataset, 6) - plain)
    assert difference.max() <= 1
    assert difference.mean() <= 0.1


@pytest.mark.parametrize("augmentation", [None, Policy("light")])
@pytest.mark.parametrize("mode", ["none", "ram"])
def test_the_memory_of_an_image_is_counted_until_it_is_resized(
    flowers, monkeypatch, mode, augmentation
):
    memory = image_files._memory
    resize, taken = Image.Image.resize, []

    def counted(image, *args, **options):
        taken.append(memory.size - memory.left)
        return resize(image, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", counted)
    dataset = load(flowers, mode, augmentation=augmentation)
    if mode == "none":
        all_images(dataset, 1)
        assert len(dataset.mean) == 3
    assert len(taken) >= 9
    assert min(taken) >= 61 * 52 * 3
    assert memory.left == memory.size


@pytest.fixture
def nab(tmp_path):
    """Its images are scaled at random, so their decoded resolution is kept."""
    root = tmp_path / "nab"
    for i in range(6):
        write_photo(root / "images" / f"{i}.jpg", 70 + i, 60 + 3 * i, i)
    for file, values in (
        ("images.txt", [f"{i}.jpg" for i in range(6)]),
        ("image_class_labels.txt", [1, 2, 1, 2, 1, 2]),
        ("train_test_split.txt", [1, 1, 1, 1, 0, 0]),
    ):
        (root / file).write_text("".join(f"{i} {v}\n" for i, v in enumerate(values)))
    return root


@pytest.mark.parametrize("mode", ["ram", "disk"])
def test_cached_images_at_decoded_resolution_are_identical(nab, mode):
    plain = load(nab, "none", "NAB")
    cached = load(nab, mode, "NAB")
    for epoch in range(3):
        first, second = (
            d.train_batches(9, seed=0, initial_epoch=epoch)[0] for d in (plain, cached)
        )
        assert np.array_equal(first[0], second[0])
        assert np.array_equal(first[1], second[1])


def test_disk_and_memory_are_identical(flowers):
    assert np.array_equal(all_images(load(flowers, "ram")), all_images(load(flowers, "disk")))


def forbid_decoding(monkeypatch):
    def forbidden(path, **options):
        raise AssertionError(f"decoded: {path}")

    monkeypatch.setattr("foreign_files.image_files.decoded_rgb", forbidden)


@pytest.mark.parametrize("mode", ["ram", "disk"])
def test_images_are_decoded_once(flowers, mode, monkeypatch):
    dataset = load(flowers, mode)
    forbid_decoding(monkeypatch)
    assert len(all_images(dataset)) == 15


def test_later_runs_find_the_disk_form(flowers, monkeypatch):
    expected = all_images(load(flowers, "disk"))
    forbid_decoding(monkeypatch)
    assert np.array_equal(all_images(load(flowers, "disk")), expected)


def cached_files(root):
    return {path.name for path in (root.parent / "cache").glob("*.pixels")}


def test_disk_form_changes_with_files_and_preprocessing(flowers):
    load(flowers, "disk")
    first = cached_files(flowers)
    assert len(first) == 2
    load(flowers, "disk", image_size=16)
    assert len(cached_files(flowers)) == 4
    load(flowers, "disk", name="Flowers-caffe")
    assert len(cached_files(flowers)) == 4
    # A subset shares the test images.
    load(flowers, "disk", name="Flowers-sub1")
    assert len(cached_files(flowers)) == 5
    os.utime(flowers / "jpg" / "image_00007.jpg", ns=(1, 1))
    before = cached_files(flowers)
    load(flowers, "disk")
    assert len(cached_files(flowers) - before) == 1


def test_interrupted_builds_leave_nothing_wrong(flowers, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("resizing.resize_region", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(flowers, "disk")
    assert not cached_files(flowers)
    assert len(all_images(load(flowers, "disk"))) == 15
    assert not list((flowers.parent / "cache").glob(".*.pixels"))


def test_files_that_are_not_whole_are_built_anew(flowers):
    expected = all_images(load(flowers, "disk"))
    for path in (flowers.parent / "cache").glob("*.pixels"):
        path.write_bytes(path.read_bytes()[:-1000])
    assert np.array_equal(all_images(load(flowers, "disk")), expected)
    for path in (flowers.parent / "cache").glob("*.pixels"):
        path.write_bytes(b"short")
    assert np.array_equal(all_images(load(flowers, "disk")), expected)


def test_damaged_indices_are_noticed(flowers):
    expected = all_images(load(flowers, "disk"))
    for path in (flowers.parent / "cache").glob("*.pixels"):
        content = bytearray(path.read_bytes())
        # Height and width of the first image change places: the size of all stays the same.
        height, width = content[32:40], content[40:48]
        assert height != width
        content[32:48] = width + height
        path.write_bytes(content)
    assert np.array_equal(all_images(load(flowers, "disk")), expected)


def test_negative_sizes_are_noticed(flowers):
    expected = all_images(load(flowers, "disk"))
    for path in (flowers.parent / "cache").glob("*.pixels"):
        content = path.read_bytes()
        count = 6 if "train" in path.name else 3
        index = np.frombuffer(content[32:][: count * 24], np.int64).copy()
        index[:2] *= -1
        index = index.tobytes()
        path.write_bytes(hashlib.sha256(index).digest() + index + content[32 + len(index) :])
    assert np.array_equal(all_images(load(flowers, "disk")), expected)


def test_images_that_became_readable_are_decoded(flowers, monkeypatch):
    expected = all_images(load(flowers, "disk", cache_dir=flowers.parent / "other"))
    decode = image_files.decoded_rgb

    def unreliable(path, **options):
        if path.endswith("00003.jpg"):
            raise UserError(f"{path}: Input/output error")
        return decode(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(image_files, "decoded_rgb", unreliable)
        for _ in range(2):
            with pytest.raises(UserError, match="1 of 9 images cannot be used"):
                load(flowers, "disk")
    assert np.array_equal(all_images(load(flowers, "disk")), expected)


def test_parts_of_killed_builds_are_removed(flowers):
    directory = flowers.parent / "cache"
    load(flowers, "disk")
    killed, running = directory / ".NAB-train-1.ab_c.pixels", directory / ".NAB-test-2.de.pixels"
    for part in (killed, running):
        part.write_bytes(b"part")
    with cache._locked(directory / "NAB-test-2.lock"):
        load(flowers, "disk")
        assert not killed.exists()
        assert running.exists()
    load(flowers, "disk")
    assert not running.exists()
    assert len(cached_files(flowers)) == 2


def test_two_runs_may_build_at_once(flowers):
    code = f"""
import datasets, foreign_files.image_files as image_files, time, pathlib
decode = image_files.decoded_rgb
def counted(path, **options):
    with open({str(flowers.parent / "decoded")!r}, "a") as file:
        file.write("x")
    time.sleep(0.05)
    return decode(path, **options)
image_files.decoded_rgb = counted
dataset = datasets.load_dataset("Flowers", {str(flowers)!r}, image_size=32, cache="disk",
                                cache_dir={str(flowers.parent / "cache")!r})
print(sum(int(dataset.train.store[i].sum()) for i in range(6)))
"""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    results = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], results
    assert len({out for out, _ in results}) == 1
    # The others waited for the first: each image was decoded once.
    assert len((flowers.parent / "decoded").read_text()) == 9


def test_auto_takes_memory_where_it_is(flowers, monkeypatch, caplog):
    caplog.set_level("INFO")
    assert load(flowers, "auto").cache == "ram"
    assert "cache: ram, since the decoded images would take about" in caplog.text
    monkeypatch.setattr("datasets.batches.cache.available_memory", lambda: 50_000)
    assert load(flowers, "auto").cache == "none"
    assert "cache: none, since" in caplog.text


def test_auto_uses_half_of_the_free_memory(flowers, monkeypatch):
    needed = sum(load(flowers, "ram").train.store[i].size for i in range(6))
    needed += sum(load(flowers, "ram").test.store[i].size for i in range(3))
    for free, expected in ((2 * needed, "ram"), (2 * needed - 2, "none")):
        monkeypatch.setattr("datasets.batches.cache.available_memory", lambda free=free: free)
        assert load(flowers, "auto").cache == expected


def test_auto_estimates_each_split_as_it_is_stored(nab, monkeypatch):
    # Training images stay as they are; test images get a smaller side of 256 x 32 / 224 = 37.
    stored = load(nab, "ram", "NAB")
    needed = sum(stored.train.store[i].size for i in range(4))
    needed += sum(stored.test.store[i].size for i in range(2))
    assert stored.test.store[0].shape[:2] != (72, 74)
    for free, expected in ((2 * needed, "ram"), (2 * needed - 2, "none")):
        monkeypatch.setattr("datasets.batches.cache.available_memory", lambda free=free: free)
        assert load(nab, "auto", "NAB").cache == expected


def test_too_little_memory_is_said(flowers, monkeypatch):
    monkeypatch.setattr("datasets.batches.cache.available_memory", lambda: 1000)
    with pytest.raises(UserError, match=r"--cache ram: .*use --cache disk or none"):
        load(flowers, "ram")


def test_too_little_disk_is_said(flowers, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"--cache_dir .*only 1 kB are free"):
        load(flowers, "disk")


def test_impossible_cache_dirs_are_named(flowers, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--cache_dir .*file/deeper: "):
        load(flowers, "disk", cache_dir=tmp_path / "file" / "deeper")


def test_unknown_modes_are_refused(flowers):
    with pytest.raises(UsageError, match="--cache tape: expected one of auto, none, ram, disk"):
        load(flowers, "tape")


def test_available_memory_is_plausible():
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < cache.available_memory() <= physical


def test_auto_finds_what_an_earlier_run_left_on_disk(flowers, monkeypatch, caplog):
    caplog.set_level("INFO")
    expected = all_images(load(flowers, "disk"))
    with monkeypatch.context() as patch:
        patch.setattr("foreign_files.image_files.decoded_rgb", None)
        found = load(flowers, "auto")
    assert found.cache == "disk"
    assert "cache: disk, since the decoded images are in" in caplog.text
    assert np.array_equal(all_images(found), expected)
    # Not those of only one split, or of another size.
    assert load(flowers, "auto", image_size=24).cache == "ram"
    (flowers.parent / "cache" / min(cached_files(flowers))).unlink()
    assert load(flowers, "auto").cache == "ram"


def test_progress_without_a_terminal(monkeypatch, caplog):
    caplog.set_level("INFO")
    assert parallel.map_threads(abs, [-1, -2], "counting") == [1, 2]
    assert not caplog.records  # short work says nothing
    monkeypatch.setattr(parallel, "_BETWEEN_LINES", 0)
    assert parallel.map_threads(abs, [-1, -2, -3], "counting") == [1, 2, 3]
    assert [line[:24] for line in caplog.messages] == [
        "counting: 1 of 3, about ", "counting: 2 of 3, about ",
    ]  # fmt: skip
