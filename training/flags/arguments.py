"""A run's arguments: resolved and checked in one place, before anything is loaded.

`parsers` declares them. Nothing here imports Keras, so that a wrong argument is answered at once.
"""

import argparse
import os
from pathlib import Path

import architectures
import datasets
import embeddings
import sgdr
from training.flags import parsers
from training.resuming import snapshot_schema, snapshots
from utils import UsageError, UserError, nearest_names

BACKENDS = ("tensorflow", "jax")
_WEIGHT_FILES = (".keras", ".h5", ".hdf5")

# What a schedule does not read must not be given with it.
_SCHEDULE_FLAGS = {
    "SGD": ("sgd_lr", "sgd_patience", "sgd_min_lr", "sgd_schedule"),
    "SGDR": ("sgdr_base_len", "sgdr_mul", "sgdr_max_lr"),
    "CLR": ("clr_step_len", "clr_min_lr", "clr_max_lr"),
    "ResNet-Schedule": (),
}


def check_training_arguments(args: argparse.Namespace) -> argparse.Namespace:
    """Resolves defaults that depend on other arguments, and refuses what cannot work.

    Args:
        args: As parsed by `parsers.training_parser()`; changed in place and returned.

    Raises:
        UsageError: An argument, or a combination of arguments, is wrong.
    """
    spec = check_data_arguments(args)
    args.image_size = args.image_size or spec.image_size
    if args.validation_fraction and args.fold:
        raise UsageError(
            "--fold: says which images are held out, as --validation_fraction does; "
            "give one of the two"
        )
    architectures.check_image_size(args.architecture, args.image_size)
    _check_loss(args)
    if spec.num_classes is not None:
        check_top_k(args.top_k_acc, spec.num_classes)
        if args.embedding == "onehot":
            architectures.check_embedding_dim(args.architecture, spec.num_classes)
    _check_finetuning(args)
    _check_schedule(args)
    if args.accumulate_steps > args.batch_size:
        raise UsageError(
            f"--accumulate_steps {args.accumulate_steps}: a batch has {args.batch_size} images "
            "only; use fewer parts"
        )
    args.val_batch_size = args.val_batch_size or args.batch_size
    _check_devices(args)
    _check_snapshot(args)
    for flag, suffix in (("model", ".keras"), ("weight", ".weights.h5"), ("feature", ".npz")):
        path = getattr(args, f"{flag}_dump")
        check_output_file(f"--{flag}_dump", path, suffix, made_by_run=args.log_dir)
    if args.initial_epoch is not None and args.initial_epoch >= args.epochs:
        raise UsageError(
            f"--initial_epoch {args.initial_epoch}: leaves nothing to do of --epochs {args.epochs}"
        )
    _check_log_dir(args.log_dir, resumed=snapshots.exists(args.snapshot))
    return args


def check_process_arguments(args: argparse.Namespace) -> None:
    """Refuses flags that do not say which of how many processes this is.

    To be called before all other checks, whose errors then reach all processes.

    Raises:
        UsageError: Some of the flags are missing or wrong, or the backend is not JAX.
    """
    flags = ("coordinator", "num_processes", "process_id")
    missing = [f"--{flag}" for flag in flags if getattr(args, flag) is None]
    if len(missing) == len(flags) or (missing and args.num_processes == 1):
        return
    if missing:
        raise UsageError(
            f"{' and '.join(missing)}: missing; each of several processes needs all of "
            "--coordinator HOST:PORT, --num_processes P and --process_id I"
        )
    host, _, port = args.coordinator.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UsageError(
            f"--coordinator {args.coordinator}: expected HOST:PORT with a port from 1 to 65535"
        )
    if args.process_id >= args.num_processes:
        raise UsageError(
            f"--process_id {args.process_id}: with --num_processes {args.num_processes} it goes "
            f"from 0 to {args.num_processes - 1}"
        )
    backend = os.environ.get("KERAS_BACKEND", BACKENDS[0])
    if backend != "jax":
        raise UsageError(
            "--coordinator: several processes train together on JAX only, as TensorFlow's "
            "strategy for several machines does not work with Keras 3's fit; set KERAS_BACKEND=jax"
        )


# What may differ between processes that train together: where things are on their machines.
_OWN = {
    "process_id", "coordinator", "num_processes", "data_root", "cache_dir", "cache",
    "read_workers", "queue_size", "no_progress",
}  # fmt: skip


def common_arguments(args: argparse.Namespace) -> dict:
    """What has to be the same in all processes that train together, by the flag."""
    return {f"--{name}": value for name, value in vars(args).items() if name not in _OWN}


def write_nothing(args: argparse.Namespace) -> None:
    """Leaves all files to another process."""
    for name in (
        *("log_dir", "model_dump", "weight_dump", "feature_dump"),
        *("snapshot", "snapshot_every", "snapshot_best"),
    ):
        setattr(args, name, None)


def load_snapshot(args: argparse.Namespace) -> snapshots.Loaded | None:
    """The snapshot that a run with these arguments continues; `None` if it begins.

    Args:
        args: As `check_training_arguments` returned them.

    Raises:
        UsageError: The snapshot belongs to a run with other arguments.
        UserError: All copies are damaged, or the history is another run's.
    """
    loaded = snapshots.load(args.snapshot)
    if loaded is None:
        return None
    snapshots.check_arguments(args, loaded.snapshot)
    _check_history(args, loaded.snapshot)
    if not snapshots.same_log_dir(args.log_dir, loaded.snapshot):
        _check_log_dir(args.log_dir)
    return loaded


def _check_history(args: argparse.Namespace, snapshot: snapshots.Snapshot) -> None:
    rows = snapshot.state["EpochReport"]["rows"]
    if not rows and snapshot.phase == snapshot_schema.ALL_LAYERS and snapshot.epoch >= args.epochs:
        raise UsageError(
            f"--epochs {args.epochs}: --snapshot {args.snapshot} began with {snapshot.epoch}, and "
            "none is left to train; give more"
        )
    names = snapshot_schema.ROW_FACTS.union(_metric_names(args))
    if rows and rows[0].keys() != names:
        raise UserError(
            f"--snapshot {args.snapshot}: its history is of {', '.join(rows[0])}, but this run's "
            f"of {', '.join(sorted(names))}; give another --snapshot to begin anew"
        )


def check_data_arguments(args: argparse.Namespace) -> datasets.DatasetSpec:
    """Resolves the data set's name and checks that its files, and the backend, are there.

    Raises:
        UsageError: The data set is unknown, or its files are not under `--data_root`.
    """
    backend = os.environ.get("KERAS_BACKEND", BACKENDS[0])
    if backend not in BACKENDS:
        raise UsageError(f"KERAS_BACKEND={backend}: expected {' or '.join(BACKENDS)}")
    spec = datasets.check_dataset(
        args.dataset,
        args.data_root,
        image_size=args.image_size,
        class_list=args.class_list,
        test_fraction=args.test_fraction,
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
    }


def reading_options(args: argparse.Namespace) -> dict:
    """What a data set's `train_batches` and `test_batches` need of the arguments."""
    return {"workers": args.read_workers, "queue_size": args.queue_size}


def check_top_k(top_k: list[int], num_classes: int) -> None:
    """Refuses a `--top_k_acc` that every prediction would meet, or that is given twice."""
    if len(set(top_k)) < len(top_k):
        raise UsageError(f"--top_k_acc {' '.join(map(str, top_k))}: a number is given twice")
    for k in top_k:
        if k >= num_classes:
            raise UsageError(
                f"--top_k_acc {k}: there are {num_classes} classes, so use less than {num_classes}"
            )


def check_input_file(flag: str, path: str, suffix: str | tuple[str, ...] = "") -> None:
    """Refuses a file that is not there, cannot be read, or whose name ends otherwise."""
    if not path.endswith(suffix):
        expected = suffix if isinstance(suffix, str) else " or ".join(suffix)
        raise UsageError(f"{flag} {path}: expected a file whose name ends in {expected}")
    if not os.path.isfile(path):
        raise UsageError(f"{flag} {path}: there is no such file")
    if not os.access(path, os.R_OK):
        raise UsageError(f"{flag} {path}: no permission to read it")


def check_output_file(
    flag: str,
    path: str | None,
    suffixes: str | tuple[str, ...] = "",
    *,
    made_by_run: str | None = None,
) -> None:
    """Refuses a file that could not be written, or whose name does not fit its format.

    Args:
        flag: The flag, for the message.
        path: Its value, or `None` where it was not given.
        suffixes: How the file's name must end, or in which ways it may.
        made_by_run: A directory that the run makes, so that it need not be there yet.
    """
    if path is None:
        return
    suffixes = (suffixes,) if isinstance(suffixes, str) else suffixes
    name = Path(path).name
    if not name.endswith(suffixes) or name in suffixes:
        raise UsageError(f"{flag} {path}: the file's name must end in {' or '.join(suffixes)}")
    if os.path.isdir(path):
        raise UsageError(f"{flag} {path}: is a directory; give a file's name")
    directory = os.path.dirname(os.path.abspath(path))
    if made_by_run is None or directory != os.path.abspath(made_by_run):
        _check_writable(flag, path, directory)


def _check_writable(flag: str, path: str, directory: str) -> None:
    if not os.path.isdir(directory):
        raise UsageError(f"{flag} {path}: there is no directory {directory}; create it first")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UsageError(f"{flag} {path}: the directory {directory} is not writable")


def _check_snapshot(args: argparse.Namespace) -> None:
    if args.snapshot is not None:
        check_output_file("--snapshot", args.snapshot)
    for flag in ("snapshot_every", "snapshot_best"):
        if getattr(args, flag) is not None and args.snapshot is None:
            raise UsageError(f"--{flag}: needs --snapshot PATH, which says where to")
    if args.snapshot_best is not None:
        known = _metric_names(args)
        args.snapshot_best = args.snapshot_best or accuracy_name(args)
        if args.snapshot_best not in known:
            raise UsageError(
                f"--snapshot_best {args.snapshot_best}: no such metric; "
                f"{nearest_names(args.snapshot_best, known)}"
            )


def accuracy_name(args: argparse.Namespace) -> str:
    """The accuracy that counts, as `history.csv` calls it."""
    return "val_prob_acc" if args.cls_weight else "val_acc"


def _metric_names(args: argparse.Namespace) -> list[str]:
    names = ["acc", *(f"top{k}_acc" for k in args.top_k_acc)]
    if args.cls_weight:
        names = [
            f"{output}_{name}" for output in ("embedding", "prob") for name in ["loss", *names]
        ]
    return [f"{prefix}{name}" for prefix in ("val_", "") for name in ["loss", *names]]


def _check_log_dir(log_dir: str | None, resumed: bool = False) -> None:
    if log_dir is None:
        return
    if os.path.exists(log_dir) and not os.path.isdir(log_dir):
        raise UsageError(f"--log_dir {log_dir}: is a file; give a directory")
    for name in ("history.csv", "result.json"):
        if os.path.exists(os.path.join(log_dir, name)) and not resumed:
            raise UsageError(
                f"--log_dir {log_dir}: holds {name} of an earlier run, which is not overwritten; "
                "give another directory"
            )
    directory = os.path.abspath(log_dir)
    while not os.path.exists(directory):
        directory = os.path.dirname(directory)
    _check_writable("--log_dir", log_dir, directory)


def _check_loss(args: argparse.Namespace) -> None:
    if args.embedding is None:
        for flag, given in (
            ("--loss", args.loss is not None),
            ("--cls_weight", args.cls_weight > 0),
        ):
            if given:
                raise UsageError(
                    f"{flag} needs class embeddings: add --embedding onehot, or leave {flag} out"
                )
    else:
        embeddings.check_embedding(args.embedding)
        args.loss = args.loss or "inv_corr"
        if args.label_smoothing and not args.cls_weight:
            raise UsageError(
                "--label_smoothing smooths the targets of the cross entropy, which an embedding "
                "loss has only with --cls_weight: add that, or leave --label_smoothing out"
            )
    if args.cls_base is not None and not args.cls_weight:
        raise UsageError("--cls_base places the classifier that --cls_weight adds: give both")


def _check_finetuning(args: argparse.Namespace) -> None:
    if args.finetune is None:
        if args.finetune_init is not None:
            raise UsageError("--finetune_init: needs --finetune FILE, to which layers can be new")
        return
    check_input_file("--finetune", args.finetune, _WEIGHT_FILES)
    if args.finetune_init is None:
        args.finetune_init = 8 if args.embedding else 3


def _check_devices(args: argparse.Namespace) -> None:
    replicas = args.gpus
    processes = args.num_processes or 1
    if replicas % processes:
        raise UsageError(
            f"--gpus {replicas}: is the number of all {processes} processes' GPUs together, and "
            f"each has as many; give a multiple of {processes}"
        )
    args.bn_groups = args.bn_groups or replicas
    if args.bn_groups % replicas:
        raise UsageError(
            f"--bn_groups {args.bn_groups}: is no multiple of --gpus {replicas}, each of which "
            f"normalises its part of a batch alone; use {replicas} or a multiple"
        )
    parts = f" x --accumulate_steps {args.accumulate_steps}" if args.accumulate_steps > 1 else ""
    for flag, multiple, why in (
        ("batch_size", batch_multiple(args), f"--bn_groups {args.bn_groups}{parts}"),
        ("val_batch_size", replicas, f"--gpus {replicas}"),
    ):
        size = getattr(args, flag)
        if size % multiple:
            fitting = " or ".join(
                str(n) for n in (size - size % multiple, size - size % multiple + multiple) if n
            )
            raise UsageError(f"--{flag} {size}: cannot be parted evenly by {why}; use {fitting}")


def batch_multiple(args: argparse.Namespace) -> int:
    """Of what the size of every batch of a training is a multiple, the last one included."""
    return args.bn_groups * args.accumulate_steps if args.bn_groups > 1 else 1


def _check_schedule(args: argparse.Namespace) -> None:
    defaults = parsers.training_parser().parse_args([])
    for schedule, flags in _SCHEDULE_FLAGS.items():
        for flag in flags:
            if flag == "sgd_lr" and args.finetune_init:
                continue  # the rate of the new layers
            if schedule != args.lr_schedule and getattr(args, flag) != getattr(defaults, flag):
                raise UsageError(
                    f"--{flag} belongs to --lr_schedule {schedule} and does nothing with "
                    f"{args.lr_schedule}"
                )
    if args.sgd_schedule:
        for flag in ("sgd_lr", "sgd_patience", "sgd_min_lr"):
            if flag == "sgd_lr" and args.finetune_init:
                continue
            if getattr(args, flag) != getattr(defaults, flag):
                raise UsageError(f"--{flag} does nothing beside --sgd_schedule, which has it all")
    for low, high in (("clr_min_lr", "clr_max_lr"), ("sgd_min_lr", "sgd_lr")):
        if getattr(args, low) > getattr(args, high):
            raise UsageError(
                f"--{low} {getattr(args, low):g} is above --{high} {getattr(args, high):g}"
            )
    args.epochs = args.epochs or sgdr.make_schedule(args).epochs
