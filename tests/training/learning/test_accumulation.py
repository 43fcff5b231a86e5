import keras
import numpy as np
import pytest

import datasets
from training import fitting
from training.learning import accumulation, losses
from utils import UsageError, UserError

from ..small_run import At, Killed, Run, assert_same

# 990 images in batches of 95: the last has 40, and neither is a multiple of 3.
BATCH = 95


@pytest.fixture(scope="module")
def dataset():
    return datasets.load_dataset("digits-sub3")


def batches(dataset, parts):
    whole = dataset.train_batches(BATCH, seed=0, workers=1)
    return accumulation.SplitBatches(whole, 990, BATCH, parts) if parts > 1 else whole


def test_parts_make_up_the_batches(dataset):
    whole, split = batches(dataset, 1), batches(dataset, 3)
    assert len(split) == 3 * len(whole)
    parts = list(split)
    for i, (images, labels) in enumerate(whole):
        own = parts[3 * i : 3 * i + 3]
        np.testing.assert_array_equal(np.concatenate([part[0] for part in own]), images)
        np.testing.assert_array_equal(np.concatenate([part[1] for part in own]), labels)
        # The mean of the parts' means is that of the batch.
        values = np.arange(len(labels), dtype="float64")
        of_parts = np.split(values, np.cumsum([len(part[1]) for part in own])[:-1])
        means = [np.mean(v * part[2]) for v, part in zip(of_parts, own, strict=True)]
        assert np.mean(means) == pytest.approx(values.mean(), rel=1e-6)


def test_parts_of_batches_that_are_filled_up(dataset):
    whole = dataset.train_batches(96, seed=0, workers=1, multiple=12)
    *_, (images, labels, weights) = whole
    *_, last = accumulation.SplitBatches(whole, 996, 96, 3)
    assert len(images) == 36
    for array, part in zip((images, labels, weights), last, strict=True):
        np.testing.assert_array_equal(part, array[24:])


def plain_model():
    """Without batch normalisation, with weight decay."""
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.Conv2D(4, 3, activation="tanh", kernel_regularizer="l2")(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(images, keras.layers.Dense(10, activation="softmax")(x))


def test_the_weights_are_those_of_whole_batches(dataset):
    weights = []
    for parts in 1, 3:
        model = plain_model()
        # A norm that clips, which has to be of the whole gradient.
        optimizer = keras.optimizers.SGD(
            0.1,
            momentum=0.9,
            global_clipnorm=0.3,
            gradient_accumulation_steps=parts if parts > 1 else None,
        )
        model.compile(optimizer, losses.CrossEntropy())
        model.fit(batches(dataset, parts), epochs=2, shuffle=False, verbose=0)
        weights.append([weight.numpy() for weight in model.weights])
    for whole, split in zip(*weights, strict=True):
        np.testing.assert_allclose(split, whole, atol=2e-5)


def test_a_run_in_parts_resumes_within_a_batch(tmp_path):
    flags = ["--epochs", "2", "--accumulate_steps", "3"]
    whole = Run(flags)
    flags += ["--snapshot", str(tmp_path / "s"), "--snapshot_every", "1e-9"]
    with pytest.raises(Killed):
        Run(flags, At(1, 9))  # the second part of the third batch is the last saved
    run = Run(flags, anew=True)
    assert run.loaded.snapshot.batch == 8
    assert_same(run, whole)


def test_fewer_images_than_parts_are_refused():
    with pytest.raises(UsageError, match="the last batch of an epoch has 40 images only"):
        accumulation.SplitBatches(None, 990, BATCH, 41)


def test_out_of_memory_names_what_takes_it():
    class ResourceExhaustedError(Exception):
        pass

    class Full(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            raise ResourceExhaustedError("failed to allocate memory")

    with pytest.raises(
        UserError,
        match=r"out of memory: --batch_size 100 .* 8 x 8 pixels in float32 .*"
        r"--accumulate_steps 2 computes",
    ):
        Run([], Full())


def test_other_errors_are_not_mistaken_for_it():
    assert not fitting._is_out_of_memory(ValueError("incompatible shapes"))
    assert fitting._is_out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: Out of memory while"))
