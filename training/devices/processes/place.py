"""Which of several processes this is, and where they meet: by flags or by what started them."""

import importlib.util
import ipaddress
import os
import socket
from argparse import Namespace
from dataclasses import dataclass

from utils import UserError

_LAUNCHER_SECONDS = 60


@dataclass(frozen=True)
class Place:
    """Which of how many processes this is, and the address of process 0, `HOST:PORT`."""

    coordinator: str
    count: int
    index: int

    @property
    def host(self) -> str:
        """Process 0's machine, as it is written in an address (IPv6 in brackets)."""
        return self.coordinator.rpartition(":")[0]

    @property
    def address(self) -> tuple[str, int]:
        """Where process 0 listens, for sockets."""
        return self.host.strip("[]"), int(self.coordinator.rpartition(":")[2])

    @property
    def on_loopback(self) -> bool:
        """Whether all processes are on one machine, and meet where no other can listen."""
        try:
            return ipaddress.ip_address(socket.gethostbyname(self.address[0])).is_loopback
        except (OSError, ValueError):
            return False


def find_place(args: Namespace) -> Place | None:
    """The place that the flags give, or else Slurm, Open MPI or Kubernetes; `None` if alone.

    A launcher counts only where it started several processes as one step: a script that Slurm
    runs alone, or with `srun --ntasks 1`, is alone. `--num_processes 1` says so too.

    Args:
        args: `coordinator`, `num_processes` and `process_id`, checked.

    Raises:
        UserError: A launcher started several processes, but JAX cannot tell where they meet.
    """
    if args.num_processes == 1:
        return None
    if args.coordinator:
        return Place(args.coordinator, args.num_processes, args.process_id)
    if os.environ.get("KERAS_BACKEND") != "jax":
        return None
    return _launched()


def _launched() -> Place | None:
    variables = os.environ
    if int(variables.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        launcher, name = "Slurm", "SlurmCluster"
    elif int(variables.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        launcher, name = "Open MPI", "OmpiCluster"
    elif (
        {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= variables.keys()
        and importlib.util.find_spec("kubernetes")  # JAX asks the cluster through it
    ):
        launcher, name = "Kubernetes", "K8sCluster"
    else:
        return None
    # What `jax.distributed.initialize` finds by these, it does not tell before it has joined.
    from jax._src import clusters

    cluster = getattr(clusters, name)
    try:
        if not cluster.is_env_present():
            raise RuntimeError("it sets none of the variables that JAX knows")
        port = variables.get("JAX_COORDINATOR_PORT")
        coordinator = cluster.get_coordinator_address(_LAUNCHER_SECONDS, port)
        place = Place(coordinator, cluster.get_process_count(), cluster.get_process_id())
    except (RuntimeError, ValueError, LookupError, OSError) as error:
        raise UserError(
            f"{launcher} started several processes, but JAX cannot find where they meet ({error}); "
            "give --coordinator, --num_processes and --process_id, or --num_processes 1 for "
            "processes that do not belong together"
        ) from None
    return place if place.count > 1 else None
