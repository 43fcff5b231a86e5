"""Images that are mixed of two, with both labels: mixup and CutMix.

Zhang et al., *mixup: Beyond Empirical Risk Minimization*, ICLR 2018 (arXiv 1710.09412); Yun et al.,
*CutMix*, ICCV 2019 (arXiv 1905.04899). Every image of a batch is mixed with the one that follows
it, the last one with the first: batches are shuffled.
"""

import math

import numpy as np

from datasets.augmentation import Mixing
from datasets.batches import rng


def mix_batch(
    mixing: Mixing,
    images: np.ndarray,
    targets: np.ndarray,
    places: np.ndarray,
    seed: int,
    epoch: int,
) -> None:
    """Mixes a batch in place.

    Args:
        mixing: How.
        images: uint8 `(batch, side, side, 3)`.
        targets: float32 `(batch, 3)`: an image's label, its second label and the weight of the
            first, which is at least a half. They come with the label in the first two; a label of
            -1 marks an image that is not mixed.
        places: Positions of the images in the epoch, `(batch,)`, which determine what is drawn.
        seed: Likewise.
        epoch: Likewise.
    """
    rows = np.flatnonzero(targets[:, 0] >= 0)
    originals, labels = images.copy(), targets[:, 0].copy()
    for row, partner in zip(rows, np.roll(rows, -1), strict=True):
        draw = rng.generator(seed, rng.MIXING, epoch, int(places[row]))
        both = mixing.mixup is not None and mixing.cutmix is not None
        by_cutmix = draw.random() < 0.5 if both else mixing.mixup is None
        alpha = mixing.cutmix if by_cutmix else mixing.mixup
        kept = float(draw.beta(alpha, alpha))
        if by_cutmix:
            kept = _paste(images[row], originals[partner], kept, draw)
        else:
            one, other = (originals[i].astype(np.float32) for i in (row, partner))
            images[row] = np.rint(kept * one + (1 - kept) * other)
        first, second = labels[row], labels[partner]
        targets[row] = (first, second, kept) if kept >= 0.5 else (second, first, 1 - kept)


def _paste(image: np.ndarray, other: np.ndarray, kept: float, draw: np.random.Generator) -> float:
    """Pastes a box of another image, of an area of 1 - `kept` but for what is beyond the edge.

    Returns:
        The share of the image that is left.
    """
    height, width = image.shape[:2]
    box = []
    for length in (height, width):
        extent = round(length * math.sqrt(1 - kept))
        first = int(draw.integers(length)) - extent // 2
        box.append((max(0, first), min(length, first + extent)))
    (top, bottom), (left, right) = box
    image[top:bottom, left:right] = other[top:bottom, left:right]
    return 1 - (bottom - top) * (right - left) / (height * width)
