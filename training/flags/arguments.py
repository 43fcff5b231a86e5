"""The flags of `learn_classifier.py`: all groups, and their checks before anything is loaded.

The rooms declare them. Nothing here imports Keras, so that a wrong argument is answered at once.
"""

import argparse

from training import augmentation, data
from training.devices import flags as devices
from training.flags.declaration import (
    FlagGroup,
    add_groups,
    allowed_on_resume,
    flags_of,
    free_on_resume,
)
from training.flags.parser import Parser
from training.learning import flags as learning
from training.learning import network_flags
from training.reporting import flags as reporting
from training.resuming import flags as resuming
from training.resuming import snapshots

DESCRIPTION = (
    "Trains an image classifier from scratch, with the cosine loss, cross entropy or both."
)


def _groups() -> tuple[FlagGroup, ...]:
    first = (
        data.TRAINING_FLAGS,
        augmentation.FLAGS,
        network_flags.NETWORK,
        learning.OPTIMISATION,
        learning.SCHEDULE,
        learning.FINETUNING,
    )
    last = (devices.DEVICES, devices.PROCESSES, reporting.OUTPUT)
    snapshots_group = resuming.snapshot_flags(allowed_on_resume(flags_of([*first, *last])))
    return (*first, snapshots_group, *last)


GROUPS = _groups()
FLAGS = flags_of(GROUPS)
# What a flag is that is not given, or that an older version did not have.
DEFAULTS = {flag.dest: flag.unset for flag in FLAGS}


def training_parser() -> Parser:
    """The parser of `learn_classifier.py`."""
    parser = Parser(description=DESCRIPTION)
    add_groups(parser, GROUPS)
    return parser


def parse_training_arguments() -> argparse.Namespace:
    """The command line of `learn_classifier.py`; of its checks only which process this is.

    All others follow in `check_training_arguments`.

    Raises:
        UsageError: A flag is unknown, or its value is of the wrong form.
    """
    args = training_parser().parse_args()
    devices.check_process_arguments(args)
    return args


def check_training_arguments(args: argparse.Namespace) -> argparse.Namespace:
    """Resolves defaults that depend on other arguments, and refuses what cannot work.

    Args:
        args: As parsed by `training_parser()`; changed in place and returned.

    Raises:
        UsageError: An argument, or a combination of arguments, is wrong.
    """
    devices.backend()
    reporting.resolve_output(args)
    spec = data.check_data_arguments(args)
    args.image_size = args.image_size or spec.image_size
    learning.check_learning_arguments(args, spec.num_classes)
    if spec.num_classes is not None:
        reporting.check_top_k(args.top_k_acc, spec.num_classes)
    devices.check_device_arguments(args)
    augmentation.check_mixing(args)
    reporting.check_output_arguments(args, resumed=snapshots.exists(args.snapshot))
    resuming.check_snapshot_arguments(args)
    return args


def load_snapshot(args: argparse.Namespace) -> snapshots.Loaded | None:
    """The snapshot that a run with these arguments continues (`resuming.flags.load_snapshot`)."""
    return resuming.load_snapshot(args, free_arguments(args), DEFAULTS)


def free_arguments(args: argparse.Namespace) -> set[str]:
    """Names of the arguments that may differ from those of the snapshot that is resumed."""
    return free_on_resume(FLAGS, args).union(args.snapshot_allow)


def common_arguments(args: argparse.Namespace) -> dict:
    """What has to be the same in all processes that train together, by the flag."""
    own = {flag.dest for flag in FLAGS if flag.per_process or flag.writes}
    return {f"--{name}": value for name, value in vars(args).items() if name not in own}


def write_nothing(args: argparse.Namespace) -> None:
    """Leaves all files to another process."""
    for flag in FLAGS:
        if flag.writes:
            setattr(args, flag.dest, flag.unset)
