"""How fast training is on several devices, and what the distributed path itself costs.

    python benchmarks/scaling.py --gpus 4 --gpu_merge --dataset CUB --data_root DIR \\
        --architecture resnet-50 --batch_size 96
    python benchmarks/scaling.py --gpus 4 --simulate_devices --dataset CIFAR-100 --data_root DIR \\
        --architecture resnet-32-fc --batch_size 96
    python benchmarks/scaling.py --dataset CIFAR-100 --data_root DIR --architecture resnet-32-fc

Trains on every number of devices that divides `--gpus`, in the loop that learn_classifier.py uses;
all take turns, and the fastest rounds are compared. Works unchanged with KERAS_BACKEND=jax where
TensorFlow is not installed.

- *Strong* scaling shares `--batch_size` images among the devices, *weak* scaling gives each as
  many as it has of them on all devices. Efficiency is the speed beside that of one device times
  their number, on a constant batch. Batch normalisation has one group per device, or `--bn_groups`.
- The *overhead* is that of the engine for several devices with one, beside none: of whole epochs,
  and of a step and the start of an epoch, told apart by epochs of a single step. That takes 20
  steps and several rounds to mean something.
- *Merging* is the time it takes to merge arrays of the gradients' sizes, alone, by the means of the
  step; a step that merges while it computes waits less. Its share is of a step on a constant batch.
- *Waiting for data* is by how much steps on the data set's batches take longer than on a constant
  one, as a share.
"""

import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training import quiet_start  # noqa: F401  # before Keras

# isort: split
import keras
import numpy as np

from benchmarks import training_loop
from benchmarks.training_loop import CONSTANT, KINDS, ONE_STEP, Training
from training import data, starting
from training.devices import distribution
from training.devices.distribution import Distribution
from training.learning import optimizers
from training.reporting import report
from utils import UsageError, run_script

STRONG, WEAK = "strong", "weak"
_MERGES = 10


def main() -> None:
    parser = training_loop.training_parser(__doc__.split("\n")[0])
    given = parser.parse_args()
    groups = given.bn_groups
    if given.steps < 2:
        raise UsageError("--steps 1: cannot tell a step from the start of an epoch; use 2 or more")
    args = training_loop.check_arguments(given)
    devices = starting.prepare(args)
    dataset = data.load_dataset(args)

    def training(number: int, batch_size: int, engine: bool) -> Training:
        changed = {"gpus": number, "batch_size": batch_size, "bn_groups": groups or number}
        chosen = Distribution(devices.devices[:1], "none")
        if engine:
            # A single device has nothing to merge; without its gradients' detour over the CPU.
            chosen = distribution.over(
                devices.devices[:number], merge_on_devices=args.gpu_merge or number == 1
            )
        return Training(Namespace(**{**vars(args), **changed}), dataset, chosen)

    whole, part = args.batch_size, args.batch_size // args.gpus
    numbers = [n for n in range(1, args.gpus + 1) if args.gpus % n == 0]
    alone = {STRONG: (1, whole, False), WEAK: (1, part, False)}
    rows = [(STRONG, alone[STRONG]), *((STRONG, (n, whole, True)) for n in numbers)]
    if args.gpus > 1:
        rows += [(WEAK, alone[WEAK]), *((WEAK, (n, n * part, True)) for n in numbers[1:])]
    trainings = {key: training(*key) for _, key in rows}
    times = training_loop.take_turns(trainings, args.rounds, kinds=(*KINDS, ONE_STEP))
    fastest = {key: min(seconds) for key, seconds in times.items()}

    print(
        f"{training_loop.describe(args)}; {keras.backend.backend()} on "
        f"{report.describe_devices(devices)}; {args.rounds} rounds of {args.steps} steps"
    )
    if args.simulate_devices:
        print("Simulated devices share one CPU: this proves that it runs, and is no speed of GPUs.")
    merging = {key: merging_seconds(trainings[key], args.rounds) for key in trainings if key[0] > 1}

    def row(scaling, key):
        number, batch_size, engine = key
        constant, real = (fastest[key, kind] / args.steps for kind in KINDS)
        speed_alone = alone[scaling][1] / fastest[alone[scaling], CONSTANT] * args.steps
        return {
            "scaling": scaling,
            "devices": f"{number}" if engine else f"{number}, no engine",
            "batch": f"{batch_size}",
            "ms/step": f"{1000 * constant:.1f}",
            "images/s": f"{batch_size / constant:.1f}",
            "efficiency": f"{batch_size / constant / speed_alone / number:.3f}",
            "merging": f"{1000 * merging[key]:.1f} ms" if key in merging else "",
            "its share": f"{merging[key] / constant:.1%}" if key in merging else "",
            "real images/s": f"{batch_size / real:.1f}",
            "waiting for data": f"{max(0, 1 - constant / real):.1%}",
        }

    print(report.table([row(*which) for which in rows]))
    pair = [(1, whole, engine) for engine in (False, True)]
    print_overhead(
        {kind: [times[key, kind] for key in pair] for kind in KINDS},
        [fastest[key, ONE_STEP] for key in pair],
        args.steps,
    )


def print_overhead(times: dict[str, list[list[float]]], one_step: list[float], steps: int) -> None:
    """What the engine with one device costs.

    Args:
        times: Seconds of epochs without and with the engine, by kind of batches.
        one_step: Seconds of the fastest epoch of a single step, without and with it.
        steps: Steps of an epoch.
    """
    print("overhead of the engine with one device")
    for kind, (without, with_engine) in times.items():
        ratios = [b / a for a, b in zip(without, with_engine, strict=True)]
        print(
            f"  epochs of {steps} steps, {kind}: {min(with_engine) / min(without) - 1:+.1%} "
            f"(fastest rounds; in the median round {statistics.median(ratios) - 1:+.1%})"
        )
    epochs = [min(seconds) for seconds in times[CONSTANT]]
    a_step = [(n - one) / (steps - 1) for n, one in zip(epochs, one_step, strict=True)]
    starts = [1000 * (one - step) for one, step in zip(one_step, a_step, strict=True)]
    print(
        f"  of that, a step: {a_step[1] / a_step[0] - 1:+.1%}; the start of an epoch: "
        f"{starts[1]:.0f} ms instead of {starts[0]:.0f}"
    )


def merging_seconds(training: Training, rounds: int) -> float:
    """Seconds to merge gradients of a network, alone; the fastest of some rounds."""
    shapes = [tuple(weight.shape) for weight in training.model.trainable_weights]
    make = _merging_of_jax if keras.backend.backend() == "jax" else _merging_of_tensorflow
    merge = make(training.devices, shapes)
    merge()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        merge()
        times.append(time.perf_counter() - started)
    return min(times) / _MERGES


def _merging_of_jax(devices: Distribution, shapes) -> Callable[[], None]:
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    mesh, axis = devices.engine.device_mesh.backend_mesh, devices.engine.batch_dim_name
    parted, whole = PartitionSpec(axis), PartitionSpec()
    gradients = [
        jax.device_put(np.ones((devices.replicas, *shape), "float32"), NamedSharding(mesh, parted))
        for shape in shapes
    ]
    add_up = jax.jit(
        jax.shard_map(
            lambda parts: jax.lax.psum([part[0] for part in parts], axis),
            mesh=mesh,
            in_specs=parted,
            out_specs=whole,
        )
    )

    def merge():
        for _ in range(_MERGES):
            merged = add_up(gradients)
        jax.block_until_ready(merged)

    return merge


def _merging_of_tensorflow(devices: Distribution, shapes) -> Callable[[], None]:
    import tensorflow as tf

    with devices.scope():
        gradients = [tf.Variable(tf.ones(shape)) for shape in shapes]

    @tf.function
    def add_up():
        return devices.engine.run(
            lambda: optimizers.sum_over_replicas([part.value() for part in gradients])
        )

    def merge():
        for _ in range(_MERGES):
            merged = add_up()
        # What is added up last is there when everything is, on every device.
        for parts in devices.engine.experimental_local_results(merged):
            parts[-1].numpy()

    return merge


if __name__ == "__main__":
    run_script(main)
