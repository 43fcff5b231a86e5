"""The operations on a batch of small images, beside Pillow's on each of them."""

import numpy as np
import pytest
from PIL import Image

from datasets.batches.trivial_augment import OPERATIONS, STRENGTHS, trivial_augment
from datasets.batches.trivial_augment_batch import trivial_augment_batch

NUMBERS = {name: number for number, name in enumerate(OPERATIONS)}


def images_of(side):
    """One of noise, and those whose values are few, narrow, all the same or not in a channel."""
    noise = np.random.default_rng(side).integers(0, 256, (6, side, side, 3), dtype=np.uint8)
    noise[1] = noise[1] // 4 + 90
    noise[2] = np.linspace(0, 255, side)[:, None, None]
    noise[3] = noise[3, 0, 0]
    noise[4, ..., 1] = 7
    noise[5] //= 100
    return noise


@pytest.mark.parametrize("side", [8, 32, 65])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_strength_is_that_of_pillow(name, side):
    operation = (NUMBERS[name] + 0.5) / len(NUMBERS)
    draws = [
        (operation, (step + 0.5) / STRENGTHS, sign) for step in range(STRENGTHS) for sign in (0, 1)
    ]
    for i, image in enumerate(images_of(side)):
        batch = np.stack([image] * len(draws))
        trivial_augment_batch(batch, *np.array(draws).T)
        expected = [trivial_augment(Image.fromarray(image), *draw) for draw in draws]
        # Elsewhere than on x86 one grey level may lack.
        difference = np.abs(batch.astype(int) - np.stack([np.asarray(x) for x in expected]))
        assert difference.max() <= 1, i
        assert (difference > 0).mean() < 0.01, i


def test_images_do_not_depend_on_their_batch():
    images = np.concatenate([images_of(16)] * 30)
    draws = np.random.default_rng(3).random((3, len(images)))
    together, apart = images.copy(), images.copy()
    trivial_augment_batch(together, *draws)
    assert len({tuple(image.ravel()) for image in together}) > 60
    for first in (0, 1, 8, 9, 100):
        trivial_augment_batch(apart[first : first + 1], *draws[:, first : first + 1])
        assert np.array_equal(apart[first], together[first])
