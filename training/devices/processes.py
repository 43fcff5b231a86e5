"""Several processes that train one network, on one machine or on many; on JAX only.

Every process runs the whole program on its share of each batch. JAX does the rest: by
`jax.distributed` the processes meet, notice by heartbeats where one is gone, and then end; by
`multihost_utils` they learn of a SIGTERM to one of them, and compare and share values.
"""

import atexit
import contextlib
import importlib.util
import io
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import numpy as np

from training.resuming import snapshots
from training.resuming.signals import Interrupted
from utils import UserError

# Of Slurm and Open MPI: how many processes there are, which this is, and which of its machine's.
_LAUNCHERS = (
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
)


class Group:
    """The processes of a training, as one of them sees them.

    Args:
        index: Which this is, from 0; only process 0 prints and writes.
        count: How many there are; `None`: known once they have joined.
        local_index: Which this is of those on its machine, from 0.
        coordinator: Where process 0 listens, `HOST:PORT`; `None`: JAX asks the launcher.
    """

    def __init__(self, index: int, count: int | None, local_index: int, coordinator: str | None):
        self.index, self.count, self.local_index = index, count, local_index
        self.coordinator = coordinator
        self._jax = self._multihost = None
        self._boundary, self._agreed = 0, False

    def join(self, gpus: int | None) -> None:
        """Meets the others with this many GPUs or all; JAX then knows the devices of all.

        Raises UserError where process 0 cannot listen, or JAX does not know the launcher.
        """
        import jax
        from jax.experimental import multihost_utils

        self._jax, self._multihost = jax, multihost_utils
        options = {}
        if self.coordinator:
            options["cluster_detection_method"] = "deactivate"
            if _is_local(self.coordinator):  # no other machine has to see it
                options["coordinator_bind_address"] = self.coordinator
        if gpus:
            # Those that this process alone sees, or its part of all.
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
            first = 0 if len(visible) == gpus and visible[0] else self.local_index * gpus
            options["local_device_ids"] = range(first, first + gpus)
        # Python's handlers would not run before JAX comes back.
        handlers = {s: signal.signal(s, signal.SIG_DFL) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            if self.coordinator and self.index == 0:  # JAX crashes where it cannot listen
                socket.create_server(("", int(self.coordinator.rpartition(":")[2]))).close()
            jax.distributed.initialize(
                *(self.coordinator, self.count, self.index),
                initialization_timeout=60,
                heartbeat_timeout_seconds=15,  # one that is gone was noticed 17 to 19 s later
                shutdown_timeout_seconds=24 * 3600,  # process 0 may be writing
                **options,
            )
        except (RuntimeError, ValueError, LookupError, OSError) as error:
            raise UserError(
                f"the processes cannot meet ({error}); give --coordinator with a free port of "
                "process 0's machine, --num_processes and --process_id, or --num_processes 1 to "
                "those that are alone"
            ) from None
        signal.signal(signal.SIGINT, handlers[signal.SIGINT])  # SIGTERM is JAX's from here on
        self.count = jax.process_count()

    def gather(self, value: Any) -> list[Any]:
        """The JSON values of all processes, by process; all have to call it."""
        text = json.dumps(value).encode()
        longest = self._multihost.process_allgather(np.int32(len(text))).max()
        rows = self._multihost.process_allgather(np.frombuffer(text.ljust(longest), "uint8"))
        return [json.loads(row.tobytes()) for row in rows]

    def check_same(self, facts: dict[str, Any], error: type[UserError] = UserError) -> None:
        """Raises an error in all processes if facts, JSON values by their names, differ."""
        first, *others = self.gather(facts)
        for index, other in enumerate(others, 1):
            for name in first:
                if other[name] != first[name]:
                    raise error(
                        f"process {index} has {name} {other[name]}, process 0 has {first[name]}; "
                        "give all the same, or --num_processes 1 to those that are alone"
                    )

    def share_snapshot(self, loaded: snapshots.Loaded | None) -> snapshots.Loaded | None:
        """Process 0's snapshot in all processes, which need not see its file."""
        buffer = io.BytesIO()
        if loaded:
            snapshots.dump(buffer, loaded.snapshot)
        size = self.gather(len(buffer.getbuffer()))[0]
        if not size:
            return None
        data = np.frombuffer(buffer.getbuffer() if loaded else bytes(size), "uint8")
        data = self._multihost.broadcast_one_to_all(data)
        if self.index == 0:
            return loaded
        with tempfile.NamedTemporaryFile(suffix=".npz") as file:
            file.write(data)
            file.flush()
            return snapshots.Loaded(snapshots.read(file.name), newest_is_good=True)

    def stop_here(self, requested: signal.Signals | None) -> signal.Signals | None:
        """The signal that ends all here, if any; all call it at the same places, as each step."""
        self._boundary += 1
        if not self._multihost.reached_preemption_sync_point(self._boundary):
            return None
        self._agreed = True
        return signal.Signals(next(filter(None, self.gather(requested)), signal.SIGTERM))

    def leave(self, error: BaseException | None = None) -> None:
        """Ends with the others, or soon where only this process ends; JAX then ends the others."""
        if self._jax is None:
            return
        end = threading.Thread(target=self._jax.distributed.shutdown, daemon=True)
        end.start()
        if error is None or (self._agreed and isinstance(error, Interrupted)):
            end.join()
            if error and self.index:
                os._exit(error.exit_status)  # process 0 says it for all
            return
        end.join(2)  # those that find the same error end with it, and not with a trace of JAX's
        status = 130 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_status", 1)
        atexit.register(os._exit, status)  # before JAX waits for the others


def find_group(args: Namespace) -> Group | None:
    """The processes that flags, Slurm, Open MPI or Kubernetes tell of; `None` for one alone.

    A launcher counts only where it started several processes as one step.
    """
    if args.coordinator and args.num_processes > 1:
        local_index = args.process_id if _is_local(args.coordinator) else 0
        return Group(args.process_id, args.num_processes, local_index, args.coordinator)
    if args.num_processes == 1 or os.environ.get("KERAS_BACKEND") != "jax":
        return None
    for names in _LAUNCHERS:
        count, index, local_index = (int(os.environ.get(name, 0)) for name in names)
        if count > 1:
            return Group(index, count, local_index, None)
    if "KUBERNETES_SERVICE_HOST" in os.environ and importlib.util.find_spec("kubernetes"):
        index = os.environ.get("JOB_COMPLETION_INDEX")
        return Group(int(index), None, 0, None) if index else None
    return None


@contextlib.contextmanager
def together(group: Group | None) -> Iterator[Group | None]:
    """Within it the processes are one program, which ends as one; only process 0 prints."""
    if group is None:
        yield None
        return
    # Gloo, too, writes to standard output; it is left to process 0's Python.
    sys.stdout.flush()
    own, encoding = os.devnull if group.index else os.dup(1), sys.stdout.encoding
    sys.stdout = open(own, "w", buffering=1, encoding=encoding)  # noqa: SIM115
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    logging.disable(logging.WARNING if group.index else logging.NOTSET)
    try:
        yield group
    except BaseException as error:
        group.leave(error)
        raise
    group.leave()


def _is_local(coordinator: str) -> bool:
    return coordinator.rpartition(":")[0] in ("localhost", "127.0.0.1")
