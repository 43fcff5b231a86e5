"""Parts of a machine: cores and GPUs for several runs at a time."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from utils import UsageError


@dataclass(frozen=True)
class Slot:
    """A part of the machine for one run at a time.

    Attributes:
        number: From 0.
        cores: The processor cores of the run, or `None` for all.
        environment: Environment variables that give it its GPUs.
    """

    number: int
    cores: tuple[int, ...] | None
    environment: dict[str, str]


def visible_gpus() -> list[str]:
    """The GPUs that programs started here see, as `CUDA_VISIBLE_DEVICES` names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1")]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return [str(i) for i in range(count)]


def divide(jobs: int, gpus_per_run: float | None, gpus: Sequence[str]) -> list[Slot]:
    """Divides cores and GPUs among runs at a time.

    Args:
        jobs: How many run at a time.
        gpus_per_run: GPUs for each, or the share of one; `None`: as many as there are.
        gpus: The GPUs, as `visible_gpus` names them.

    Raises:
        UsageError: There are not so many GPUs.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    each = len(gpus) / jobs if gpus_per_run is None else gpus_per_run
    if each > 1:
        each = int(each)
    if each * jobs > len(gpus) + 1e-9:
        raise UsageError(
            f"--gpus_per_trial {each:g}: {jobs} jobs need {each * jobs:g} GPUs, but "
            f"{len(gpus)} are visible; use fewer --jobs or a smaller share"
        )
    slots = []
    for i in range(jobs):
        environment = {}
        if each:
            first = int(i * each + 1e-9)
            own = gpus[first : first + max(1, int(each))]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(own)
            if each < 1:  # otherwise the first one takes all its memory
                environment["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
                environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 * each:.3f}"
        part = None
        if jobs > 1 and cores:
            parts = np.array_split(cores, jobs) if jobs <= len(cores) else None
            part = tuple(map(int, parts[i])) if parts else (cores[i % len(cores)],)
        slots.append(Slot(i, part, environment))
    return slots


@contextlib.contextmanager
def on_cores(cores: tuple[int, ...] | None) -> Iterator[None]:
    """What is started within it runs on these cores only."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
