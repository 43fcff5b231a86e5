"""The flags of snapshots, and which snapshot a run continues."""

import argparse
import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from training.flags import paths
from training.flags.declaration import Flag, FlagGroup
from training.flags.parser import number
from training.reporting.flags import accuracy_name, check_log_dir, metric_names
from training.resuming import snapshot_schema, snapshots
from utils import UsageError, UserError, nearest_names


def snapshot_flags(allowed: Sequence[str]) -> FlagGroup:
    """The flags of snapshots.

    Args:
        allowed: Names of the arguments of all groups that `--snapshot_allow` may let differ.
    """
    return FlagGroup(
        "interrupting and resuming",
        (
            Flag(
                "--snapshot",
                metavar="PATH",
                help="written after every epoch, the one before it kept as PATH.previous; when it "
                "exists, the training resumes from it",
                on_resume="free",
                writes=True,
                synonyms=("--resume", "--checkpoint", "--ckpt"),
            ),
            Flag(
                "--snapshot_every",
                type=number(above=0),
                metavar="SECONDS",
                help="also write it within an epoch, whenever the last one is that old",
                on_resume="free",
                writes=True,
            ),
            Flag(
                "--snapshot_best",
                nargs="?",
                const="",
                metavar="METRIC",
                help="also keep the model of the best epoch, as PATH.best.keras; METRIC is a "
                "column of history.csv",
                default_text="val_acc, with --cls_weight val_prob_acc",
                on_resume="free",
                writes=True,
            ),
            Flag(
                "--initial_epoch",
                type=number(int, least=0),
                metavar="N",
                help="begin the schedule and the data order after N epochs; with an existing "
                "snapshot it must agree and can be left out",
                on_resume="free",
            ),
            Flag(
                "--snapshot_allow",
                nargs="+",
                choices=allowed,
                default=[],
                metavar="FLAG",
                help="resume although these were changed, as in --snapshot_allow sgdr_max_lr; any "
                f"of {', '.join(allowed)}",
                on_resume="free",
            ),
        ),
    )


def check_snapshot_arguments(args: argparse.Namespace) -> None:
    """Refuses snapshots that could not be written; resolves `snapshot_best`.

    Raises:
        UsageError: A path, a metric or an epoch is wrong.
    """
    if args.snapshot is not None:
        directory = os.path.dirname(args.snapshot)
        paths.check_output_file(
            "--snapshot",
            args.snapshot,
            made_by_run=[directory],
            longest_addition=".best.keras",
        )
        paths.check_output_directory("--snapshot", args.snapshot, directory)
    for flag in ("snapshot_every", "snapshot_best"):
        if getattr(args, flag) is not None and args.snapshot is None:
            raise UsageError(f"--{flag}: needs --snapshot PATH, which says where to")
    if args.snapshot_best is not None:
        known = metric_names(args)
        args.snapshot_best = args.snapshot_best or accuracy_name(args)
        if args.snapshot_best not in known:
            raise UsageError(
                f"--snapshot_best {args.snapshot_best}: no such metric; "
                f"{_metric_hint(args.snapshot_best, known)}"
            )
    if args.epochs is not None:
        check_initial_epoch(args)


def check_initial_epoch(args: argparse.Namespace) -> None:
    """Refuses to begin where nothing is left to train.

    Raises:
        UsageError: So it is.
    """
    if args.initial_epoch is not None and args.initial_epoch >= args.epochs:
        raise UsageError(
            f"--initial_epoch {args.initial_epoch}: leaves nothing to do of --epochs {args.epochs}"
        )


def _metric_hint(name: str, known: list[str]) -> str:
    # acc5, top_5 and the like are among the K best, of which --top_k_acc says the K.
    if k := re.fullmatch(r"(?:val_)?(?:prob_)?(?:acc|top)_?([0-9]+)(?:_acc)?", name):
        return f"write val_top{k[1]}_acc, and give --top_k_acc {k[1]}"
    return nearest_names(name, known)


def load_snapshot(
    args: argparse.Namespace, free: Collection[str], defaults: Mapping[str, Any]
) -> snapshots.Loaded | None:
    """The snapshot that a run with these arguments continues; `None` if it begins.

    Args:
        args: The resolved arguments.
        free: Names of those that may differ from the snapshot's.
        defaults: What flags are that the snapshot's program did not have.

    Raises:
        UsageError: The snapshot belongs to a run with other arguments.
        UserError: All copies are damaged, or the history is another run's.
    """
    loaded = snapshots.load(args.snapshot)
    if loaded is None:
        return None
    known = loaded.snapshot.arguments
    # Before there was a seed for the split, the one for all drew it.
    loaded.snapshot.arguments = {**defaults, "split_seed": known.get("seed"), **known}
    snapshots.check_arguments(args, loaded.snapshot, free)
    _check_history(args, loaded.snapshot)
    if not snapshots.same_log_dir(args.log_dir, loaded.snapshot):
        check_log_dir(args)
    return loaded


def _check_history(args: argparse.Namespace, snapshot: snapshots.Snapshot) -> None:
    rows = snapshot.state["EpochReport"]["rows"]
    epochs = args.epochs or math.inf  # which with --images_seen only loading the data tells
    if not rows and snapshot.phase == snapshot_schema.ALL_LAYERS and snapshot.epoch >= epochs:
        raise UsageError(
            f"--epochs {epochs}: --snapshot {args.snapshot} began with {snapshot.epoch}, and "
            "none is left to train; give more"
        )
    names = snapshot_schema.ROW_FACTS.union(metric_names(args))
    if rows and rows[0].keys() != names:
        raise UserError(
            f"--snapshot {args.snapshot}: its history is of {', '.join(rows[0])}, but this run's "
            f"of {', '.join(sorted(names))}; give another --snapshot to begin anew"
        )
