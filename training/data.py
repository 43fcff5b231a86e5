"""Which images a training has and how they are read: flags, the data set and its batches."""

import argparse
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import datasets
from training import augmentation
from training.devices.flags import batch_multiple
from training.flags.declaration import Flag, FlagGroup
from training.flags.parser import number
from training.reporting.flags import check_top_k
from training.resuming.flags import check_initial_epoch
from utils import UsageError, counted, say


def fold(text: str) -> str:
    """An argparse `type`: `I/K`, the I-th of K folds."""
    part, slash, count = text.partition("/")
    if not (slash and part.isdecimal() and count.isdecimal()) or not (
        1 <= int(part) <= int(count) and 2 <= int(count) < 2**31
    ):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected I/K, the I-th of K parts, as in 1/5: K from 2 to {2**31 - 1}, I "
            "from 1 to K"
        )
    return f"{int(part)}/{int(count)}"


FLAGS = FlagGroup(
    "data",
    (
        Flag(
            "--dataset",
            default="digits",
            metavar="NAME",
            help="data set; -subN after its name trains on N images per class. "
            f"Known: {', '.join(datasets.dataset_names())}",
        ),
        Flag(
            "--data_root",
            metavar="DIR",
            help="where its files are (digits has none)",
            synonyms=("--data", "--data_dir", "--root"),
            on_resume="free",
            per_process=True,
        ),
        Flag(
            "--image_size",
            type=number(int, least=1, most=2**14),
            metavar="S",
            help="crop of S x S pixels from images whose smaller side is S*8/7",
            default_text="the data set's own sizes",
        ),
        Flag(
            "--class_list",
            metavar="FILE",
            help="use only the classes whose ids begin the lines of this file, in its order",
            synonyms=("--classes_from", "--classes"),
        ),
        Flag(
            "--test_fraction",
            type=number(above=0, most=1),
            metavar="SHARE",
            help="of each class to test on, for a folder of class folders; drawn with --split_seed "
            "(in an evaluation 1: all images)",
            synonyms=("--test_split", "--test_size"),
        ),
        Flag(
            "--skip_bad_images",
            action="store_true",
            help="leave out images that cannot be read, instead of refusing to start",
        ),
        Flag(
            "--cache_dir",
            metavar="DIR",
            help="of --cache disk and computed statistics",
            default_text="the user's cache directory",
            on_resume="free",
            per_process=True,
        ),
        Flag(
            "--read_workers",
            type=number(int, least=1, most=1024),
            default=8,
            metavar="N",
            help="reading threads",
            synonyms=("--workers", "--num_workers", "--threads"),
            on_resume="free",
            per_process=True,
        ),
        Flag(
            "--queue_size",
            type=number(int, least=1),
            default=100,
            metavar="N",
            help="batches read ahead at most; all together are bounded to 640 MiB too",
            on_resume="free",
            per_process=True,
        ),
    ),
)

# A training reads its images more than once, and is what one checks them for.
TRAINING_FLAGS = FlagGroup(
    FLAGS.title,
    (
        *FLAGS.flags,
        Flag(
            "--cache",
            choices=datasets.CACHE_MODES,
            default="auto",
            help="keep decoded images: auto is disk if an earlier run left them there, else ram if "
            "they fit in half of the free memory, else none",
            on_resume="free",
            per_process=True,
        ),
        Flag(
            "--validation_fraction",
            type=number(above=0, below=1),
            metavar="SHARE",
            help="hold out this share of each class's training images: what an epoch is judged by "
            "(val_…, --snapshot_best) is then of them, and the test images are used once, at the "
            "end",
            default_text="epochs are judged by the test images, as published",
            synonyms=("--validation_split", "--val_split", "--val_fraction"),
        ),
        Flag(
            "--fold",
            type=fold,
            metavar="I/K",
            help="as --validation_fraction, with the I-th of K equal parts of the training images",
        ),
        Flag(
            "--split_seed",
            type=number(int, least=0, below=2**31),
            default=0,
            metavar="N",
            help="draws the images of -subN, the test images of --test_fraction and the "
            "validation images, so that runs that differ in --seed see the same",
        ),
        Flag(
            "--finish_size",
            type=number(int, least=1, most=2**14),
            metavar="S",
            help="as --image_size, for the last tenth of the epochs; the network is tested, and "
            "used, at this size",
            default_text="all epochs have the same size",
        ),
        Flag(
            "--train_repeats",
            type=number(int, least=1, most=10**6),
            metavar="R",
            help="how often an epoch goes through the training images",
            default_text="1; with -subN as often as makes about as many steps as all images",
        ),
        Flag(
            "--check_data",
            action="store_true",
            help="only decode every image of the data set, and list those that cannot be read",
            on_resume="free",
        ),
    ),
)


def check_data_arguments(args: argparse.Namespace) -> datasets.DatasetSpec:
    """Resolves the data set's name and checks that its files are there.

    Raises:
        UsageError: The data set is unknown, its files are not under `--data_root`, or flags do
            not go together.
    """
    # Only a training has the flags of a validation split.
    if getattr(args, "validation_fraction", None) and args.fold:
        raise UsageError(
            "--fold: says which images are held out, as --validation_fraction does; "
            "give one of the two"
        )
    spec = datasets.check_dataset(
        args.dataset,
        args.data_root,
        image_size=args.image_size,
        class_list=args.class_list,
        test_fraction=args.test_fraction,
        augmentation=augmentation.policy(args),
        # Only a training has the flag, and reads more than the test images.
        splits=("train", "test") if hasattr(args, "cache") else ("test",),
    )
    args.dataset = spec.name
    return spec


def loading_options(args: argparse.Namespace) -> dict:
    """What `datasets.load_dataset` needs of the data flags, besides name and root."""
    names = ("image_size", "class_list", "test_fraction", "cache_dir", "skip_bad_images")
    options = {name: getattr(args, name) for name in names}
    # What is read once need not be kept, and only a training draws a split.
    if not hasattr(args, "cache"):
        return options | {"cache": "none"}
    validation = None
    if args.validation_fraction or args.fold:
        fold = tuple(map(int, args.fold.split("/"))) if args.fold else None
        validation = datasets.Validation(args.validation_fraction, fold)
    return options | {
        "cache": args.cache,
        "validation": validation,
        "split_seed": args.split_seed,
        "train_repeats": args.train_repeats,
        "augmentation": augmentation.policy(args),
    }


def reading_options(args: argparse.Namespace) -> dict:
    """What a data set's `train_batches` and `test_batches` need of the arguments."""
    return {"workers": args.read_workers, "queue_size": args.queue_size}


def load_dataset(args: argparse.Namespace):
    """The data set that resolved arguments name.

    The arguments then say what `--cache auto` came to, and how many epochs `--images_seen` is.

    Raises:
        UsageError: `--top_k_acc` has more than its classes, `--initial_epoch` is the last, or
            there is no epoch for images of another size.
        UserError: A file is missing or damaged.
    """
    options = loading_options(args)
    dataset = datasets.load_dataset(args.dataset, args.data_root, **options)
    if args.finish_size:
        options["image_size"] = args.finish_size
        dataset.finish = datasets.load_dataset(args.dataset, args.data_root, **options)
    args.cache = dataset.cache
    check_top_k(args.top_k_acc, len(dataset.class_names))
    if args.images_seen:
        args.epochs = max(1, round(args.images_seen / dataset.images_per_epoch))
        check_initial_epoch(args)
    if args.finish_size and args.epochs < 2:
        raise UsageError(
            f"--finish_size {args.finish_size}: the last tenth of the epochs has images of this "
            "size, and there is one epoch only; train for two or more"
        )
    return dataset


@dataclass
class Finish:
    """The last epochs of a training, whose images have another size.

    (Touvron et al., *Fixing the train-test resolution discrepancy*, NeurIPS 2019, arXiv 1906.06423,
    finish so, with all but the last layers frozen.)

    Attributes:
        batches: Of these images.
        begins: After how many epochs.
        facts: What the network's `info` says from there on.
    """

    batches: "Batches"
    begins: int
    facts: dict[str, int]


@dataclass
class Batches:
    """The batches of a training.

    Attributes:
        train: Shuffled and augmented.
        validation: What an epoch is judged by: the validation or else the test images.
        test: The test images.
        images_per_epoch: Training images of an epoch, each as often as it comes.
        finish: What takes their place for the last epochs, if anything does.
    """

    train: Any
    validation: Any
    test: Any
    images_per_epoch: int
    finish: Finish | None = None

    def reading_errors(self, advice: Callable[[], str]) -> contextlib.AbstractContextManager:
        """Within it, an image that cannot be read is the error that ends the run.

        Args:
            advice: How to go on then, for the message.
        """
        parts = [self] if self.finish is None else [self, self.finish.batches]
        all_batches = [b for part in parts for b in (part.train, part.validation, part.test)]
        return datasets.reading_errors(*all_batches, advice=advice)


def make_batches(args: argparse.Namespace, dataset, share: tuple[int, int] = (0, 1)) -> Batches:
    """The batches that resolved arguments ask for.

    Args:
        args: Resolved arguments.
        dataset: As loaded.
        share: Which of how many processes reads them; each has its part of every batch.

    Raises:
        UsageError: The last batch of an epoch is smaller than `--accumulate_steps`.
    """
    from training.learning.accumulation import SplitBatches

    # Several outputs have the same labels each.
    labels = ("embedding", "prob") if args.cls_weight else None
    reading = {**reading_options(args), "label_keys": labels, "share": share}
    multiple = batch_multiple(args)
    parts = args.accumulate_steps
    train = dataset.train_batches(
        args.batch_size, seed=args.seed, multiple=multiple, parts=parts, **reading,
        mixing=augmentation.mixing(args),
    )  # fmt: skip
    images = dataset.images_per_epoch
    if parts > 1:
        filled = -(-images // multiple) * multiple
        train = SplitBatches(train, filled, args.batch_size, parts)
    judging = {"batch_size": args.val_batch_size, "multiple": args.gpus, **reading}
    finish = None
    if dataset.finish:
        spec = dataset.finish.spec
        finish = Finish(
            make_batches(args, dataset.finish, share),
            args.epochs - max(1, round(args.epochs / 10)),
            {"image_size": spec.image_size, "test_resize": spec.test_resize},
        )
    test = dataset.test_batches(**judging)
    return Batches(train, dataset.validation_batches(**judging), test, images, finish)


def check_images(args: argparse.Namespace) -> int:
    """Decodes every image of the data set and lists the bad ones; the exit status, 1 if any."""
    options = loading_options(args) | {"check_files": False}
    dataset = datasets.load_dataset(args.dataset, args.data_root, **options)
    bad, doubtful = dataset.check_images()
    total = len(dataset.train) + len(dataset.test)
    lines = [*doubtful, *bad, f"{dataset.name}: {len(bad)} of {total} images cannot be read"]
    if doubtful:
        count = counted(len(doubtful), "image is", "images are")
        lines.append(f"{dataset.name}: {count} of one colour or nearly black")
    for line in lines:
        say(line)
    return 1 if bad else 0
