"""How training images are changed at random: the choice, and what it means for a data set.

Nothing here imports NumPy, so that a script can check its arguments at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from utils import UsageError

AUGMENTATIONS = ("paper", "none", "light", "strong")
FLIPS = ("none", "random", "alternating")

# Of a random resized crop: width over height.
CROP_RATIO = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class Policy:
    """An augmentation in place of the paper's; `None` stands for the data set's default.

    Photos get a random resized crop, small images (in arrays) a shifted one, whose edges are
    filled by reflection.

    Attributes:
        name: `"none"`, `"light"` or `"strong"`, which adds TrivialAugment to both and erasing to
            photos.
        flip: One of `FLIPS`; `"alternating"` mirrors each image every second time it is seen.
        crop_scale: Of photos: smallest share of the image's area that is cropped, up to all of it.
        erase: Of photos: probability that a rectangle is replaced by noise.
        crop_shift: Of small images: largest shift each way, in pixels.
        cutout: Of small images: side of a square that is replaced by the mean colour, in pixels.
    """

    name: str
    flip: str | None = None
    crop_scale: float | None = None
    erase: float | None = None
    crop_shift: int | None = None
    cutout: int | None = None

    @property
    def trivial_augment(self) -> bool:
        """Whether every image also goes through one operation of TrivialAugment."""
        return self.name == "strong"

    def source_side(self, image_size: int) -> int:
        """The smaller side to which larger photos are resized before they are cropped.

        Of a square image of that side the smallest crop, at the extreme of its ratio, still has
        `image_size` pixels each way. It bounds what a cache holds.
        """
        return math.ceil(image_size / math.sqrt(self.crop_scale * CROP_RATIO[0]))


@dataclass(frozen=True)
class Mixing:
    """How training images are mixed of two; with both, an image is mixed either way at random.

    Attributes:
        mixup: The share of an image is drawn from Beta(A, A) of this A; `None`: no mixup.
        cutmix: Likewise the share that is not covered by a box of the other image.
    """

    mixup: float | None = None
    cutmix: float | None = None


_FLAGS = {
    "flip": "--flip",
    "crop_scale": "--crop_scale",
    "erase": "--erase",
    "crop_shift": "--crop_shift",
    "cutout": "--cutout",
}
_OF_PHOTOS = {"crop_scale": "--crop_shift", "erase": "--cutout"}
_OF_SMALL_IMAGES = {"crop_shift": "--crop_scale", "cutout": "--erase"}


def resolve(
    policy: Policy | None, name: str, image_size: int, *, small: bool, mirrored: bool
) -> Policy | None:
    """The policy with the defaults of a data set, `None` for the paper's augmentation.

    Args:
        policy: As asked for.
        name: The data set's.
        image_size: The side of what the network sees.
        small: Whether its images are taken as they are, and not resized as photos.
        mirrored: Whether a mirror image is of the same class.

    Raises:
        UsageError: A parameter was given that does nothing for it, or is impossible.
    """
    if policy is None:
        return None
    given = [name for name in _FLAGS if getattr(policy, name) is not None]
    if policy.name in ("paper", "none"):
        if given:
            raise UsageError(
                f"{_FLAGS[given[0]]}: does nothing with --augmentation {policy.name}; "
                "give light or strong"
            )
        return None if policy.name == "paper" else replace(policy, flip="none")
    for parameter, other in (_OF_PHOTOS if small else _OF_SMALL_IMAGES).items():
        if parameter in given:
            kind = "photos" if small else "small images"
            raise UsageError(
                f"{_FLAGS[parameter]}: is for {kind}; the images of {name} have {other}"
            )
    chosen = {parameter: getattr(policy, parameter) for parameter in given}
    if not small:
        strong = policy.name == "strong"
        defaults = {"flip": "random", "crop_scale": 0.4, "erase": 0.25 if strong else 0.0}
        return replace(policy, **(defaults | chosen))
    # As usual at 32 pixels: shifts of 4 and a cutout of 12.
    defaults = {
        "flip": "random" if mirrored else "none",
        "crop_shift": round(image_size / 8),
        "cutout": round(image_size * 3 / 8),
    }
    policy = replace(policy, **(defaults | chosen))
    for parameter in ("crop_shift", "cutout"):
        if (pixels := getattr(policy, parameter)) >= image_size:
            raise UsageError(
                f"{_FLAGS[parameter]} {pixels}: expected less than the {image_size} pixels of an "
                "image"
            )
    return policy
