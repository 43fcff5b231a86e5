"""Images that are mixed of two: the pixels, the labels, and that they are reproducible."""

import numpy as np
import pytest

import datasets
from datasets.augmentation import Mixing, Policy
from datasets.batches.mixing import mix_batch

MIXINGS = {
    "mixup": Mixing(mixup=0.4),
    "cutmix": Mixing(cutmix=1.0),
    "both": Mixing(mixup=1.0, cutmix=0.5),
}


@pytest.fixture(scope="module")
def digits():
    return datasets.load_dataset("digits-sub5", augmentation=Policy("none"), train_repeats=1)


def mixed(mixing, count=40, side=16, epoch=0, last=0):
    """Images, targets and original images; the `last` ones have the label -1."""
    originals = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    labels = np.arange(count, dtype=np.float32)
    labels[count - last :] = -1
    targets = np.stack([labels, labels, np.ones(count, np.float32)], axis=1)
    images = originals.copy()
    mix_batch(mixing, images, targets, np.arange(count), 5, epoch)
    return images, targets, originals


def own_share(targets, count):
    """The weight of each image's own label; the other one is the next image's."""
    first, second, weight = targets.T
    own = np.arange(count)
    assert np.all(weight >= 0.5)
    assert np.all((first == own) | (second == own))
    assert np.all((first == (own + 1) % count) | (second == (own + 1) % count))
    return np.where(first == own, weight, 1 - weight)


def test_mixup_is_the_weighted_mean_of_images_and_labels():
    images, targets, originals = mixed(Mixing(mixup=0.4))
    share = own_share(targets, 40)[:, None, None, None]
    expected = share * originals + (1 - share) * np.roll(originals, -1, axis=0)
    assert np.abs(images - expected).max() <= 0.51
    assert share.min() < 0.4 < 0.6 < share.max()


def test_cutmix_pastes_a_box_and_weighs_labels_by_area():
    images, targets, originals = mixed(Mixing(cutmix=1.0))
    share = own_share(targets, 40)
    others = np.roll(originals, -1, axis=0)
    for i in range(40):
        pasted = (images[i] != originals[i]).any(axis=-1)
        assert np.array_equal(images[i][pasted], others[i][pasted])
        rows, columns = np.flatnonzero(pasted.any(axis=1)), np.flatnonzero(pasted.any(axis=0))
        if not len(rows):
            assert share[i] == 1
            continue
        box = np.zeros_like(pasted)
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        # Two random pixels are hardly ever the same.
        assert (box & ~pasted).sum() <= 1
        assert share[i] == pytest.approx(1 - box.mean(), abs=1e-6)
    assert len(np.unique(share)) > 20


def test_with_both_some_images_are_mixed_either_way():
    images, _, originals = mixed(Mixing(mixup=1.0, cutmix=1.0))
    others = np.roll(originals, -1, axis=0)
    cut = [np.all((a == b) | (a == c)) for a, b, c in zip(images, originals, others, strict=True)]
    assert 8 < np.sum(cut) < 32


def test_images_that_do_not_count_stay_and_are_no_partners():
    images, targets, originals = mixed(Mixing(mixup=1.0), count=6, last=2)
    assert np.array_equal(images[4:], originals[4:])
    assert np.array_equal(targets[4:], [[-1, -1, 1]] * 2)
    own_share(targets[:4], 4)


@pytest.mark.parametrize("name", MIXINGS)
def test_batches_are_the_same_by_workers_and_after_a_resume(name, digits):
    def epochs(count=2, **options):
        batches = digits.train_batches(8, seed=7, mixing=MIXINGS[name], **options)
        result = []
        for _ in range(count):
            result += list(batches)
            batches.epoch += 1
        return result

    expected = epochs(workers=1)
    images, targets = expected[0]
    assert (images.dtype, targets.dtype, targets.shape) == (np.uint8, np.float32, (8, 3))
    assert not np.array_equal(expected[0][0], expected[len(expected) // 2][0])
    for again in (epochs(workers=4), epochs(1, initial_epoch=1)):
        part = expected[-len(again) :]
        for (x, y), (other_x, other_y) in zip(again, part, strict=True):
            assert np.array_equal(x, other_x)
            assert np.array_equal(y, other_y)
    # The first labels or the second ones are those of the batches without mixing.
    plain = np.concatenate([y for _, y in digits.train_batches(8, seed=7)])
    mixed = np.concatenate([y for _, y in expected[: len(expected) // 2]])
    assert np.all((mixed[:, 0] == plain) | (mixed[:, 1] == plain))


def test_weights_of_filled_batches_stay(digits):
    # 50 images in batches of 8: the last one has 2, and 6 that do not count.
    *_, (_, targets, weights) = digits.train_batches(8, seed=7, multiple=8, mixing=Mixing(1.0))
    assert (targets[:, 0] >= 0).tolist() == [True] * 2 + [False] * 6
    assert np.all(weights == 4)
