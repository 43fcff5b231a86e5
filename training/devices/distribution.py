"""Data parallelism on one machine: which devices share a batch, and how gradients are merged.

On TensorFlow by `tf.distribute.MirroredStrategy`: every device has a replica of the network and
runs the step on its part of the batch. On JAX by `keras.distribution.DataParallel`: the step is one
program, which the compiler parts.
"""

import contextlib
import logging
import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from datasets.batches.parallel import num_cores
from training.devices.processes import Group
from utils import UsageError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Distribution:
    """The devices of a training.

    Attributes:
        devices: Their names.
        reduction: How their gradients are merged, in words.
        engine: Keras' distribution or TensorFlow's strategy; `None` for a single device.
        group: The processes that the devices belong to; `None` for one process.
    """

    devices: tuple[str, ...]
    reduction: str
    engine: Any = None
    group: Group | None = None

    @property
    def share(self) -> tuple[int, int]:
        """Which of how many processes this is."""
        return (self.group.index, self.group.count) if self.group else (0, 1)

    @property
    def replicas(self) -> int:
        """The parts that a batch is split into."""
        return len(self.devices)

    def scope(self) -> contextlib.AbstractContextManager:
        """Where the network is built, trained and evaluated."""
        return contextlib.nullcontext() if self.engine is None else self.engine.scope()

    def describe(self, groups: int) -> dict[str, Any]:
        """What `result.json` says of it.

        Args:
            groups: Groups of a batch for batch normalisation.
        """
        return {
            "devices": list(self.devices),
            "replicas": self.replicas,
            "processes": self.share[1],
            "batch_norm_groups": groups,
            "reduction": self.reduction,
        }


def choose(args: Namespace, group: Group | None = None) -> Distribution:
    """The devices that arguments ask for; call it before anything is computed.

    Args:
        args: Resolved arguments: `gpus`, `gpu_merge` and `simulate_devices`.
        group: The processes that train together, if they are several.

    Raises:
        UsageError: There are fewer devices.
    """
    if args.gpus > 1 and keras.backend.backend() == "jax" and not args.gpu_merge:
        logger.info("on JAX gradients are merged on the devices, as with --gpu_merge")
    if group:
        return _choose_in_all(args, group)
    if args.simulate_devices:
        simulate_devices(args.gpus)
    kind = "cpu" if args.simulate_devices else "gpu"
    if args.gpus == 1:
        return Distribution(tuple(_found(kind)[:1]) or ("cpu:0",), "none")
    found = _found(kind)
    if len(found) < args.gpus:
        raise UsageError(
            f"--gpus {args.gpus}: found {', '.join(found) or 'no GPU'}; use what is there (with "
            f"--bn_groups {args.bn_groups} the numbers are those of {args.gpus} GPUs), or try it "
            "on the CPU with --simulate_devices"
        )
    return over(found[: args.gpus], args.gpu_merge)


def _choose_in_all(args: Namespace, group: Group) -> Distribution:
    """The devices of all processes, as many of each; JAX only."""
    import jax

    own = group.count and args.gpus // group.count
    kind = "gpu"
    if args.simulate_devices:
        kind = "cpu"
        simulate_devices(own or args.gpus)
        # With steps started ahead, trainings were seen to stall on simulated devices.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    group.join(None if args.simulate_devices else own)
    own = args.gpus // group.count
    found, names = _jax_devices(kind), []
    for index in range(group.count):
        devices = [
            f"{device.platform}:{device.id}" for device in found if device.process_index == index
        ]
        if len(devices) != own or own * group.count != args.gpus:
            raise UsageError(
                f"--gpus {args.gpus}: are those of {group.count} processes together, but in "
                f"process {index} found {', '.join(devices) or 'no GPU'}; give all processes the "
                f"same, {group.count} times what each has, or try it on the CPU with "
                "--simulate_devices"
            )
        names += devices
    return replace(over(names), group=group)


def over(devices: Sequence[str], merge_on_devices: bool = True) -> Distribution:
    """Data parallelism over devices, also over a single one.

    Args:
        devices: Names like `gpu:0`.
        merge_on_devices: Whether gradients are merged there and not on the CPU. On JAX they always
            are.
    """
    if keras.backend.backend() == "jax":
        engine = keras.distribution.DataParallel(devices=list(devices), auto_shard_dataset=False)
        return Distribution(tuple(devices), "all-reduce on the devices (XLA)", engine)

    import tensorflow as tf

    if not merge_on_devices:
        merging, words = tf.distribute.ReductionToOneDevice("cpu:0"), "sum on the CPU"
    elif _has_nccl(devices):
        merging, words = tf.distribute.NcclAllReduce(), "all-reduce on the devices (NCCL)"
    else:
        merging = tf.distribute.HierarchicalCopyAllReduce()
        words = "all-reduce on the devices (hierarchical copy)"
    engine = tf.distribute.MirroredStrategy(list(devices), cross_device_ops=merging)
    return Distribution(tuple(devices), words, engine)


def in_several_processes() -> bool:
    """Whether the devices belong to several processes."""
    if keras.backend.backend() != "jax":
        return False
    import jax

    return jax.process_count() > 1


def replicated(value: float):
    """A number that all devices have, to assign to a variable.

    Between several processes JAX would compare it, and wait for all of them.
    """
    if not in_several_processes():
        return value
    import jax

    mesh = keras.distribution.distribution().device_mesh
    everywhere = keras.distribution.TensorLayout([], mesh).backend_layout
    return jax.make_array_from_callback((), everywhere, lambda _: np.float32(value))


def replica_values(variable: keras.Variable) -> np.ndarray:
    """A metric's variable as its replicas have it, `(replicas, ...)`; the sum is its value."""
    return np.stack([keras.ops.convert_to_numpy(part) for part in _in_replicas(variable)])


def assign_replica_values(variable: keras.Variable, values: np.ndarray) -> None:
    """Puts back what `replica_values` gave, with as many replicas to the last bit."""
    parts = _in_replicas(variable)
    if len(parts) == len(values):
        for part, value in zip(parts, values, strict=True):
            part.assign(value)
    else:
        variable.assign(values.sum(axis=0))


def _in_replicas(variable):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.distribute.get_strategy().experimental_local_results(variable.value)
    return (variable,)


def simulate_devices(count: int) -> None:
    """Makes the CPU look like several devices, before it is used for the first time."""
    if keras.backend.backend() == "jax":
        import jax

        # Devices wait for each other in the threads of XLA's pool, which are as many as cores:
        # with none left, what they wait for could not run.
        os.environ.setdefault("PJRT_NPROC", str(8 * count + num_cores()))
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", count)
        return
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    [cpu] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
    )


def _found(kind: str) -> list[str]:
    """The devices of a kind, `gpu` or `cpu`; an empty list if there are none."""
    if keras.backend.backend() == "jax":
        return [f"{device.platform}:{device.id}" for device in _jax_devices(kind)]
    import tensorflow as tf

    return [f"{kind}:{i}" for i, _ in enumerate(tf.config.list_logical_devices(kind.upper()))]


def _jax_devices(kind: str) -> list:
    import jax

    try:
        return jax.devices(kind)
    except RuntimeError:  # how JAX says that there are none
        return []


def _has_nccl(devices: Sequence[str]) -> bool:
    import tensorflow as tf

    return devices[0].startswith("gpu") and tf.test.is_built_with_cuda()
