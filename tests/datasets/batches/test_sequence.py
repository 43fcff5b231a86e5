import dataclasses
import hashlib
from pathlib import Path

import keras
import numpy as np
import pytest

import datasets
from datasets.batches import pipeline, sequence
from utils import UserError

from ...programs import run
from ..conftest import cifar_batch, write_pickle


@pytest.fixture
def flowers_64(flowers):
    return datasets.load_dataset("Flowers", flowers, image_size=32, cache="none")


@pytest.fixture(scope="module")
def digits():
    return datasets.load_dataset("digits-sub5")


def epoch_of(batches):
    batches.on_epoch_begin()
    result = list(batches)
    batches.on_epoch_end()
    return result


def same(first, second):
    return len(first) == len(second) and all(
        np.array_equal(x1, x2) and np.array_equal(y1, y2)
        for (x1, y1), (x2, y2) in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("name", ["digits", "flowers_64"])
def test_batches_do_not_depend_on_workers_or_queue(name, request):
    dataset = request.getfixturevalue(name)
    results = []
    for workers, queue_size in ((1, 1), (4, 100), (16, 3)):
        batches = dataset.train_batches(4, seed=7, workers=workers, queue_size=queue_size)
        results.append([epoch_of(batches), epoch_of(batches)])
    for other in results[1:]:
        assert same(other[0], results[0][0])
        assert same(other[1], results[0][1])
    assert not same(results[0][0], results[0][1])


@pytest.mark.parametrize("name", ["digits", "flowers_64"])
def test_images_depend_on_their_place_not_on_the_batch_size(name, request):
    dataset = request.getfixturevalue(name)
    joined = [
        np.concatenate([x for x, _ in dataset.train_batches(size, seed=7, workers=2)])
        for size in (4, 5)
    ]
    assert np.array_equal(*joined)


def test_seeds_differ(digits):
    first, second = (digits.train_batches(50, seed=seed)[0][1] for seed in (0, 1))
    assert not np.array_equal(first, second)


def digest(batches) -> str:
    hashed = hashlib.sha256()
    for images, labels in batches:
        hashed.update(images.tobytes())
        hashed.update(labels.tobytes())
    return hashed.hexdigest()


def test_another_process_makes_the_same_batches(flowers_64):
    root = Path(flowers_64.train.images[0]).parents[1]
    code = f"""
import datasets, hashlib
dataset = datasets.load_dataset("Flowers", {str(root)!r}, image_size=32, cache="none")
hashed = hashlib.sha256()
for images, labels in dataset.train_batches(4, seed=7, workers=3, initial_epoch=2):
    hashed.update(images.tobytes())
    hashed.update(labels.tobytes())
print(hashed.hexdigest())
"""
    done = run("-c", code)
    expected = digest(flowers_64.train_batches(4, seed=7, workers=1, initial_epoch=2))
    assert done.stdout.strip() == expected


def test_a_resumed_run_continues(flowers_64):
    batches = flowers_64.train_batches(4, seed=7)
    epochs = [epoch_of(batches) for _ in range(4)]
    resumed = flowers_64.train_batches(4, seed=7, initial_epoch=2)
    assert same(epoch_of(resumed), epochs[2])
    assert same(epoch_of(resumed), epochs[3])


def test_a_resumed_epoch_has_the_rest_of_its_batches(flowers_64):
    batches = flowers_64.train_batches(1, seed=7)
    epochs = [epoch_of(batches) for _ in range(3)]
    resumed = flowers_64.train_batches(1, seed=7)
    resumed.start_at(1, 2)
    assert len(resumed) == len(epochs[1]) - 2
    assert same(epoch_of(resumed), epochs[1][2:])
    assert same(epoch_of(resumed), epochs[2])


def test_every_image_comes_once_per_repeat(digits):
    # Without augmentation images can be told apart; the shuffling is the same.
    order = pipeline.ArrayPipeline(
        digits.train, 8, None, seed=3, train=True, repeats=digits.train_repeats
    ).order(0)
    assert np.bincount(order).tolist() == [digits.train_repeats] * len(digits.train)
    batches = digits.train_batches(48, seed=3)
    sizes = [len(images) for images, _ in batches]
    assert sizes == [48] * 20 + [40]
    labels = np.concatenate([labels for _, labels in batches])
    assert np.array_equal(labels, digits.train.labels[order])


def test_every_file_comes_once(flowers_64):
    labels = np.concatenate([labels for _, labels in flowers_64.train_batches(4, seed=0)])
    assert np.bincount(labels).tolist() == [2, 2, 2]


def test_repeated_images_are_augmented_differently(flowers_64):
    flowers_64.train = flowers_64.train.take(np.array([0]))
    flowers_64.train_repeats = 6
    images, _ = flowers_64.train_batches(6, seed=0)[0]
    assert len({image.tobytes() for image in images}) == 6


def test_test_batches_keep_the_order(digits):
    batches = digits.test_batches(100)
    images = np.concatenate([images for images, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    assert np.array_equal(images, digits.test.images)
    assert np.array_equal(labels, digits.test.labels)


def test_batches_are_small_integers(flowers_64):
    images, labels = flowers_64.train_batches(4, seed=0)[0]
    assert images.dtype == np.uint8
    assert images.shape == (4, 32, 32, 3)
    assert labels.dtype == np.int32


def test_labels_for_several_outputs(digits):
    _, labels = digits.train_batches(10, seed=0, label_keys=("embedding", "prob"))[0]
    assert labels.keys() == {"embedding", "prob"}
    assert np.array_equal(labels["embedding"], labels["prob"])


def augmentations(dataset, monkeypatch):
    """What is drawn for 20 epochs of a small array data set."""
    drawn = []
    monkeypatch.setattr(
        "datasets.batches.transforms.warp_batch",
        lambda images, flip, shift, zoom: drawn.append((flip, shift, zoom)) or images,
    )
    for epoch in range(40):
        list(dataset.train_batches(50, seed=1, initial_epoch=epoch))
    return (np.concatenate(parts) for parts in zip(*drawn, strict=True))


def test_augmentation_of_cifar_100(cifar_100, monkeypatch):
    dataset = datasets.load_dataset("CIFAR-100", cifar_100)
    flip, shift, zoom = augmentations(dataset, monkeypatch)
    assert flip.mean() == pytest.approx(0.5, abs=0.025)
    assert np.abs(shift).max() <= 0.15 * 32
    assert np.abs(shift).max(axis=0) == pytest.approx(0.15 * 32, rel=0.01)
    assert shift.mean(axis=0) == pytest.approx(0, abs=0.15)
    assert shift.std(axis=0) == pytest.approx(0.15 * 32 / np.sqrt(3), rel=0.03)
    assert abs(np.corrcoef(shift.T)[0, 1]) < 0.05
    assert np.all(zoom == 1)


def test_augmentation_of_cifar_10_zooms(cifar_10, monkeypatch):
    flip, shift, zoom = augmentations(datasets.load_dataset("CIFAR-10", cifar_10), monkeypatch)
    assert flip.mean() == pytest.approx(0.5, abs=0.05)
    assert np.abs(shift).max() <= 0.15 * 32
    assert zoom.min() == pytest.approx(0.75, abs=0.01)
    assert zoom.max() == pytest.approx(1.25, abs=0.01)
    assert zoom.min() >= 0.75
    assert zoom.max() <= 1.25
    assert zoom.std(axis=0) == pytest.approx(0.25 / np.sqrt(3), rel=0.06)


def test_digits_are_shifted_but_never_mirrored(digits, monkeypatch):
    flip, shift, zoom = augmentations(digits, monkeypatch)
    assert not flip.any()
    assert 0.14 * 8 < np.abs(shift).max() <= 0.15 * 8
    assert np.all(zoom == 1)


@pytest.mark.parametrize("num_images", [2, 3, 8])
@pytest.mark.parametrize("initial_epoch", [0, 2])
def test_keras_sees_each_epoch_in_turn(tmp_path, num_images, initial_epoch):
    # fit calls on_epoch_end before the first epoch, and fetches batches to see their shapes.
    write_pickle(tmp_path / "train", cifar_batch(range(num_images), "fine_labels"))
    write_pickle(tmp_path / "test", cifar_batch(range(2), "fine_labels"))
    dataset = datasets.load_dataset("CIFAR-100", tmp_path)
    seen = []

    class Recorder(keras.layers.Layer):
        def call(self, images, training=None):
            if training:
                seen.append(keras.ops.convert_to_numpy(images).astype(np.uint8))
            return keras.ops.mean(keras.ops.cast(images, "float32"), axis=(1, 2))

    model = keras.Sequential([keras.Input((32, 32, 3), dtype="uint8"), Recorder()])
    model.add(keras.layers.Dense(100))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, run_eagerly=True)
    seen.clear()
    batches = dataset.train_batches(3, seed=5, workers=4, initial_epoch=initial_epoch)
    model.fit(
        batches, epochs=initial_epoch + 3, initial_epoch=initial_epoch, shuffle=False, verbose=0,
        validation_data=dataset.test_batches(3, workers=4),
    )  # fmt: skip
    expected = [
        images
        for epoch in range(initial_epoch, initial_epoch + 3)
        for images, _ in dataset.train_batches(3, seed=5, initial_epoch=epoch)
    ]
    assert len(seen) == len(expected)
    assert all(np.array_equal(*pair) for pair in zip(seen, expected, strict=True))


def test_looking_at_a_batch_before_training_costs_no_epoch(digits):
    # As Keras does on JAX, to see the shapes.
    batches = digits.train_batches(100, seed=0)
    batches.on_epoch_begin()
    batches[0]
    batches.on_epoch_end()
    assert batches.epoch == 0


@pytest.mark.parametrize("workers", [1, 4])
def test_a_bad_image_is_named(flowers_64, workers):
    bad = Path(flowers_64.train.images[4])
    bad.write_bytes(bad.read_bytes()[:300])
    with pytest.raises(UserError, match=bad.name):
        list(flowers_64.train_batches(2, seed=0, workers=workers))


def test_a_bad_image_ends_a_training_and_can_be_told(flowers_64):
    (bad := Path(flowers_64.train.images[4])).unlink()
    model = keras.Sequential(
        [keras.Input((32, 32, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batches = flowers_64.train_batches(1, seed=0, workers=4, queue_size=1)
    with (  # each backend wraps it in an error of its own
        pytest.raises(UserError, match=rf"{bad.name}: No such file.*; to resume: do this$"),
        datasets.reading_errors(batches, advice=lambda: "; to resume: do this"),
    ):
        model.fit(batches, epochs=2, shuffle=False, verbose=0)


def test_batches_beyond_the_end_are_refused(digits):
    batches = digits.train_batches(100, seed=0)
    with pytest.raises(IndexError):
        batches[len(batches)]


def test_queue_is_bounded_in_memory(flowers_64, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(sequence, "QUEUE_BYTES", 3 * 4 * 32 * 32 * 3)
    batches = flowers_64.train_batches(4, seed=0, queue_size=32)
    assert batches.queue_size == 3
    assert "queue of 3 batches instead of 32" in caplog.text
    assert flowers_64.train_batches(4, seed=0, queue_size=2).queue_size == 2


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_a_last_batch_is_filled_up_with_its_own_images(digits, count):
    digits = digits_of(digits, 12 + count)
    whole = digits.test_batches(12, workers=1)
    filled = digits.test_batches(12, workers=1, multiple=4)
    assert len(filled) == len(whole) == 2
    (x, y), (x_filled, y_filled, weights) = whole[0], filled[0]
    np.testing.assert_array_equal(x_filled, x)
    np.testing.assert_array_equal(y_filled, y)
    np.testing.assert_array_equal(weights, np.ones(12, np.float32))
    (x, y), (x_filled, y_filled, weights) = whole[1], filled[1]
    size = -(-count // 4) * 4
    assert len(x_filled) == len(y_filled) == len(weights) == size
    np.testing.assert_array_equal(x_filled[:count], x)
    np.testing.assert_array_equal(y_filled[:count], y)
    assert (y_filled[count:] == -1).all()
    # No image of its own would be a group without statistics.
    assert all(any(np.array_equal(image, own) for own in x) for image in x_filled[count:])
    # The mean over the filled batch is that over the images which count.
    losses = np.where(y_filled >= 0, np.arange(size), 0)
    assert np.mean(weights * losses) == pytest.approx(np.arange(count).mean())


def digits_of(digits, number):
    return dataclasses.replace(digits, test=digits.test.take(np.arange(number)))


def test_a_batch_size_that_no_devices_can_share(digits):
    with pytest.raises(ValueError, match="batch_size 10 is no multiple of 4"):
        digits.test_batches(10, multiple=4)


@pytest.mark.parametrize(("parts", "multiple"), [(1, 4), (2, 8)])
def test_shares_one_after_the_other_are_the_batch(digits, parts, multiple):
    options = {"seed": 3, "workers": 2, "multiple": multiple, "parts": parts}
    digits = dataclasses.replace(digits, train=digits.train.take(np.arange(45)))
    whole = digits.train_batches(32, **options)
    shares = [digits.train_batches(32, share=(i, 2), **options) for i in range(2)]
    assert [len(batches) for batches in shares] == [len(whole)] * 2
    for index in range(len(whole)):
        expected = whole[index]
        own = [batches[index] for batches in shares]
        for wanted, *given in zip(expected, *own, strict=True):
            assert len(given[0]) == len(given[1]) == len(wanted) // 2
            split = [np.split(array, parts) for array in given]
            together = [np.concatenate(pair) for pair in zip(*split, strict=True)]
            np.testing.assert_array_equal(np.concatenate(together), wanted)


def test_only_the_own_share_is_read(flowers_64):
    read = []
    options = {"workers": 1, "queue_size": 1}
    batches = flowers_64.train_batches(4, seed=0, multiple=2, share=(1, 2), **options)
    fill = batches._pipeline.fill
    batches._pipeline.fill = lambda out, samples, *rest: (
        read.extend(samples),
        fill(out, samples, *rest),
    )
    _, labels, _ = batches[0]
    expected = batches._pipeline.order(0)[2:4]
    np.testing.assert_array_equal(read, expected)
    np.testing.assert_array_equal(labels, flowers_64.train.labels[expected])


def test_shares_have_to_be_even(digits):
    with pytest.raises(ValueError, match="4 is no multiple of 2 shares of 4 parts"):
        digits.train_batches(8, seed=0, multiple=4, share=(0, 2), parts=4)
