"""The flags that say what a run reports and writes, and the names of its scores."""

import argparse
import dataclasses
import os

from training.flags import paths
from training.flags.declaration import Flag, FlagGroup
from training.flags.parser import number
from utils import UsageError

# Of the scripts that read dumped models.
MODELS = Flag(
    "--model",
    action="append",
    required=True,
    metavar="M.keras",
    help="a dumped model; may be given several times",
)

# Of those that label images, also with what export_model.py writes.
LABELLING_MODELS = dataclasses.replace(
    MODELS,
    metavar="MODEL",
    help="a dumped model, .keras, or one that export_model.py made of it, .onnx or .tflite; of "
    "several the mean of their scores counts",
)

BATCH_SIZE = Flag(
    "--batch_size",
    type=number(int, least=1),
    default=100,
    metavar="N",
    help="images at a time",
)

TOP_K = Flag(
    "--top_k_acc",
    type=number(int, least=1),
    nargs="+",
    default=[],
    metavar="K",
    help="also report the share of images whose class is among the K best",
)

TTA = Flag(
    "--tta",
    choices=("flip",),
    help="test-time augmentation: flip takes the mean of the scores of each image and its mirror "
    "image",
    default_text="each image as it is",
    on_resume="free",
)

OUTPUT = FlagGroup(
    "output",
    (
        Flag(
            "--output",
            metavar="DIR",
            help="everything one wants to keep: --log_dir DIR, --snapshot DIR/snapshot and "
            "--model_dump DIR/model.keras, where these are not given, and a report, "
            "DIR/report.html; the same command resumes",
            on_resume="free",
            writes=True,
            synonyms=("--output_dir", "--out", "--save_dir"),
        ),
        Flag(
            "--log_dir",
            metavar="DIR",
            help="history.csv, result.json and TensorBoard events; must not hold another run's",
            on_resume="free",
            writes=True,
        ),
        Flag(
            "--no_report",
            action="store_true",
            help="with --output: do not make the report at the end",
            on_resume="free",
        ),
        Flag(
            "--model_dump",
            metavar="M.keras",
            help="the trained model, complete in itself",
            on_resume="free",
            writes=True,
        ),
        Flag(
            "--plain_dump",
            metavar="M.keras",
            help="the trained model of a --harmonic network with plain convolutions: the same "
            "predictions, computed faster",
            on_resume="free",
            writes=True,
        ),
        Flag(
            "--weight_dump",
            metavar="W.weights.h5",
            help="its weights alone",
            on_resume="free",
            writes=True,
        ),
        Flag(
            "--feature_dump",
            metavar="F.npz",
            help="features, labels and class names of the test images",
            on_resume="free",
            writes=True,
        ),
        Flag(
            "--no_progress",
            action="store_true",
            help="one line per epoch on a terminal too",
            on_resume="free",
            per_process=True,
        ),
        TOP_K,
        dataclasses.replace(
            TTA, help=f"{TTA.help}; at the end of the training, and both are reported"
        ),
    ),
)

# How the file of a class hierarchy is to be read.
HIERARCHY_FORMAT = (
    Flag(
        "--is_a",
        action="store_true",
        help="the lines of the hierarchy are `child parent`, not `parent child`",
    ),
    Flag("--str_ids", action="store_true", help="its class ids are text, not numbers"),
)


def resolve_output(args: argparse.Namespace) -> None:
    """Sets what `--output` stands for, where it was not given by a flag of its own."""
    if args.output is not None:
        args.log_dir = args.log_dir or args.output
        args.snapshot = args.snapshot or os.path.join(args.output, "snapshot")
        args.model_dump = args.model_dump or os.path.join(args.output, "model.keras")


def keeps_something(args: argparse.Namespace) -> bool:
    """Whether the run writes any file that is there when it has ended."""
    flags = ("log_dir", "model_dump", "plain_dump", "weight_dump", "feature_dump", "snapshot")
    return any(getattr(args, flag) for flag in flags)


def check_output_arguments(args: argparse.Namespace, *, resumed: bool) -> None:
    """Refuses files that could not be written, or would take the place of another run's.

    Args:
        args: The parsed arguments.
        resumed: Whether the log directory may hold an earlier part of the same run.

    Raises:
        UsageError: A path is wrong.
    """
    made = [args.log_dir] if args.log_dir else []
    if args.snapshot:
        made.append(os.path.dirname(args.snapshot))
    suffixes = {"model": ".keras", "plain": ".keras", "weight": ".weights.h5", "feature": ".npz"}
    for flag, suffix in suffixes.items():
        path = getattr(args, f"{flag}_dump")
        paths.check_output_file(f"--{flag}_dump", path, suffix, made_by_run=made)
    if args.plain_dump and args.harmonic == "none":
        raise UsageError(
            "--plain_dump is for networks with --harmonic first or all; give --model_dump"
        )
    if args.plain_dump and args.plain_dump == args.model_dump:
        raise UsageError(f"--plain_dump {args.plain_dump}: is that of --model_dump; give another")
    check_log_dir(args, resumed=resumed)


def log_dir_flag(args: argparse.Namespace) -> str:
    """The flag that the log directory was given by."""
    return "--output" if args.log_dir == args.output else "--log_dir"


def check_log_dir(args: argparse.Namespace, *, resumed: bool = False) -> None:
    """Refuses a log directory that cannot be made, or that holds another run."""
    if args.log_dir is None:
        return
    flag, log_dir = log_dir_flag(args), args.log_dir
    if os.path.exists(log_dir) and not os.path.isdir(log_dir):
        raise UsageError(f"{flag} {log_dir}: is a file; give a directory")
    for name in ("history.csv", "result.json"):
        if os.path.exists(os.path.join(log_dir, name)) and not resumed:
            raise UsageError(
                f"{flag} {log_dir}: holds {name} of an earlier run, which is not overwritten; "
                "give another directory"
            )
    paths.check_output_directory(flag, log_dir, log_dir)


def check_top_k(top_k: list[int], num_classes: int) -> None:
    """Refuses a `--top_k_acc` that every prediction would meet, or that is given twice."""
    if len(set(top_k)) < len(top_k):
        raise UsageError(f"--top_k_acc {' '.join(map(str, top_k))}: a number is given twice")
    for k in top_k:
        if k >= num_classes:
            raise UsageError(
                f"--top_k_acc {k}: there are {num_classes} classes, so use less than {num_classes}"
            )


def accuracy_name(args: argparse.Namespace) -> str:
    """The accuracy that counts, as `history.csv` calls it."""
    return "val_prob_acc" if args.cls_weight else "val_acc"


def metric_names(args: argparse.Namespace) -> list[str]:
    """The scores of an epoch, as `history.csv` calls them."""
    names = ["acc", *(f"top{k}_acc" for k in args.top_k_acc)]
    if args.cls_weight:
        names = [
            f"{output}_{name}" for output in ("embedding", "prob") for name in ["loss", *names]
        ]
    return [f"{prefix}{name}" for prefix in ("val_", "") for name in ["loss", *names]]
