"""How training images are changed at random: flags."""

import argparse

import datasets
from training.flags.declaration import Flag, FlagGroup
from training.flags.parser import number

FLAGS = FlagGroup(
    "augmentation",
    (
        Flag(
            "--augmentation",
            choices=datasets.AUGMENTATIONS,
            default="paper",
            help="random changes of training images. paper: as published for the data set; none; "
            "light: random resized crop and flip, of small images (CIFAR, digits) a crop shifted "
            "by some pixels, flip and cutout; strong: in addition one random operation of "
            "TrivialAugment, and erasing in photos",
        ),
        Flag(
            "--flip",
            choices=datasets.FLIPS,
            help="horizontally; alternating mirrors each image every second time it is seen",
            default_text="random, none for digits",
        ),
        Flag(
            "--crop_scale",
            type=number(above=0, most=1),
            metavar="SHARE",
            help="of photos: smallest share of the image's area that a crop has",
            default_text="0.4",
        ),
        Flag(
            "--erase",
            type=number(least=0, most=1),
            metavar="P",
            help="of photos: probability that a rectangle is replaced by noise",
            default_text="strong: 0.25, light: 0",
            synonyms=("--random_erasing", "--reprob"),
        ),
        Flag(
            "--crop_shift",
            type=number(int, least=0),
            metavar="PIXELS",
            help="of small images: largest shift each way; edges are filled by reflection",
            default_text="an eighth of the side: 4 of 32",
        ),
        Flag(
            "--cutout",
            type=number(int, least=0),
            metavar="PIXELS",
            help="of small images: side of a square in the mean colour, at a random place",
            default_text="three eighths of the side: 12 of 32",
        ),
    ),
    "what each flag but the first changes needs --augmentation light or strong",
)


def policy(args: argparse.Namespace) -> datasets.Policy | None:
    """The augmentation that arguments ask for; `None` where they have no training images."""
    if not hasattr(args, "augmentation"):
        return None
    names = ("flip", "crop_scale", "erase", "crop_shift", "cutout")
    return datasets.Policy(args.augmentation, **{name: getattr(args, name) for name in names})
