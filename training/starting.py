"""How a run starts: alone or as one of several processes, on its devices, from its snapshot.

Arguments are checked, and a snapshot is read, before Keras and its backend are loaded, which takes
seconds.
"""

import contextlib
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from training.devices import processes
from training.flags import arguments
from training.resuming import claims, signals, snapshots
from utils import UsageError


@dataclass
class Session:
    """What a training runs in.

    Attributes:
        devices: What shares the batches (`training.devices.distribution.Distribution`).
        stop: The signals that end the run.
        loaded: The snapshot that is continued, or `None`.
    """

    devices: Any
    stop: signals.StopSignals
    loaded: snapshots.Loaded | None

    def agreed(self, value: Any) -> Any:
        """Process 0's JSON value in all processes; of a process alone its own."""
        group = self.devices.group
        return group.gather(value)[0] if group else value

    def check_same_data(self, facts: dict[str, Any]) -> None:
        """Refuses processes that found other data than process 0.

        Raises:
            UserError: They differ.
        """
        if self.devices.group:
            self.devices.group.check_same(facts)


@contextlib.contextmanager
def started(args: Namespace) -> Iterator[Session]:
    """A run with these arguments, which are checked and resolved first; within it one trains.

    Args:
        args: As parsed; changed in place.

    Raises:
        UsageError: An argument is wrong, the snapshot belongs to a run with other arguments, or
            another run writes to the same place now.
        UserError: The snapshot is damaged, or the processes do not meet.
    """
    with processes.together(processes.find_group(args)) as group:
        if group:
            args.num_processes = group.count
            if group.index:
                arguments.write_nothing(args)
        arguments.check_training_arguments(args)
        with claims.claimed(args):
            loaded = arguments.load_snapshot(args)
            stop = signals.StopSignals(group)
            stop.install()
            devices = prepare(args, group)
            if group:
                group.check_same(arguments.common_arguments(args), UsageError)
                loaded = group.share_snapshot(loaded)
            with devices.scope():
                yield Session(devices, stop, loaded)


def prepare(args: Namespace, group=None):
    """Loads Keras and sets what holds for all of a run; the devices that the arguments ask for.

    Args:
        args: Resolved arguments.
        group: The processes that train together, if they are several.
    """
    import keras

    from training.devices import distribution
    from training.resuming import saving

    keras.utils.set_random_seed(args.seed)
    if args.deterministic:
        saving.make_deterministic()
    keras.config.set_dtype_policy(args.precision)
    devices = distribution.choose(args, group)
    if keras.backend.backend() == "tensorflow" and args.gpus < 2:
        _start_sooner()
    return devices


def _start_sooner() -> None:
    """On a CPU TensorFlow's optimiser of graphs costs seconds at the start and wins no time later.

    A GPU needs its choice of layouts.
    """
    import tensorflow as tf

    if not tf.config.get_visible_devices("GPU"):
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
