"""The flags that say on which devices, and in how many processes, a training runs."""

import argparse
import os

from training.flags.declaration import Flag, FlagGroup
from training.flags.parser import number
from utils import UsageError

BACKENDS = ("tensorflow", "jax")

# With as many `bn_groups`, more or fewer devices change the last digits only.
DEVICES = FlagGroup(
    "device",
    (
        Flag(
            "--gpus",
            type=number(int, least=1),
            default=1,
            metavar="N",
            help="GPUs that share every batch, in equal parts",
            on_resume="free",
        ),
        Flag(
            "--gpu_merge",
            action="store_true",
            help="merge gradients on the GPUs instead of on the CPU; on JAX it is always so",
            on_resume="free",
        ),
        Flag(
            "--simulate_devices",
            action="store_true",
            help="in place of GPUs, make the CPU look like as many devices; to try it, it is no "
            "faster",
            on_resume="free",
        ),
        Flag(
            "--bn_groups",
            type=number(int, least=1),
            metavar="G",
            help="batch normalisation takes its statistics from each of G equal parts of a batch: "
            "G on one GPU is what G GPUs do",
            default_text="one part per GPU",
        ),
        Flag(
            "--deterministic",
            action="store_true",
            help="only operations that give the same in every run on the same machine, bit by "
            "bit; slower on GPUs",
        ),
    ),
)

PROCESSES = FlagGroup(
    "several machines (KERAS_BACKEND=jax)",
    (
        Flag(
            "--coordinator",
            metavar="HOST:PORT",
            help="where process 0 runs, and a free port there; the processes exchange their "
            "results by further ports",
            on_resume="free",
            per_process=True,
        ),
        Flag(
            "--num_processes",
            type=number(int, least=1),
            metavar="P",
            help="how many there are; 1: none but this one, whatever started it",
            on_resume="free",
        ),
        Flag(
            "--process_id",
            type=number(int, least=0),
            metavar="I",
            help="which of them this is, from 0; only process 0 prints and writes",
            on_resume="free",
            per_process=True,
        ),
    ),
    "one process on each, all with the same flags but for --process_id; started by Slurm, Open "
    "MPI or Kubernetes as one step, they need none of these",
)


def backend() -> str:
    """The backend that Keras will use.

    Raises:
        UsageError: It is none that this program knows.
    """
    name = os.environ.get("KERAS_BACKEND", BACKENDS[0])
    if name not in BACKENDS:
        raise UsageError(f"KERAS_BACKEND={name}: expected {' or '.join(BACKENDS)}")
    return name


def check_process_arguments(args: argparse.Namespace) -> None:
    """Refuses flags that do not say which of how many processes this is.

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
    if backend() != "jax":
        raise UsageError(
            "--coordinator: several processes train together on JAX only, as TensorFlow's "
            "strategy for several machines does not work with Keras 3's fit; set KERAS_BACKEND=jax"
        )


def check_device_arguments(args: argparse.Namespace) -> None:
    """Refuses batches that cannot be parted evenly by the devices; resolves `bn_groups`."""
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
