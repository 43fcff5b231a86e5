"""How training images are changed at random: flags."""

import argparse

import datasets
from training.flags.declaration import Flag, FlagGroup
from training.flags.parser import number
from utils import UsageError

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
        *(
            Flag(
                name,
                type=number(above=0),
                metavar="A",
                help=f"{help}; the shares are drawn from Beta(A, A), and the loss is the mean of "
                "both labels' by them. Accuracies of training images count the greater share",
                default_text="off",
            )
            for name, help in (
                ("--mixup", "every training image is the mean of two"),
                ("--cutmix", "every training image has a box of another one"),
            )
        ),
    ),
    "what --flip, --crop_…, --erase and --cutout change needs --augmentation light or strong",
)


def check_mixing(args: argparse.Namespace) -> None:
    """Refuses to mix images where no process has the whole of a batch.

    Raises:
        UsageError: Several processes are to train together.
    """
    if mixing(args) and (args.num_processes or 1) > 1:
        flag = "--mixup" if args.mixup is not None else "--cutmix"
        raise UsageError(f"{flag}: works in one process only; leave it out, or the others")


def mixing(args: argparse.Namespace) -> datasets.Mixing | None:
    """How images are mixed of two; `None` where they are not."""
    if args.mixup is None and args.cutmix is None:
        return None
    return datasets.Mixing(args.mixup, args.cutmix)


def policy(args: argparse.Namespace) -> datasets.Policy | None:
    """The augmentation that arguments ask for; `None` where they have no training images."""
    if not hasattr(args, "augmentation"):
        return None
    names = ("flip", "crop_scale", "erase", "crop_shift", "cutout")
    return datasets.Policy(args.augmentation, **{name: getattr(args, name) for name in names})
