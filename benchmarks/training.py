"""How much of the network's speed the training loop keeps when it reads real images.

    python benchmarks/training.py --dataset CIFAR-100 --data_root DIR --architecture resnet-32-fc
    python benchmarks/training.py --dataset Flowers --data_root DIR --architecture resnet-50 \\
        --image_size 224 --batch_size 16 --steps 6

Trains the same model in turn on the data set's batches and on one constant batch, `--rounds`
times, in the loop that learn_classifier.py uses, and compares the fastest rounds. Takes the flags
of a training, `--gpus` and `--bn_groups` too. Works unchanged with KERAS_BACKEND=jax where
TensorFlow is not installed.
"""

import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training import quiet_start  # noqa: F401  # before Keras

# isort: split
import keras

from benchmarks import training_loop
from training import data, starting
from training.reporting import report
from utils import run_script


def main() -> None:
    parser = training_loop.training_parser(__doc__.split("\n")[0])
    args = training_loop.check_arguments(parser.parse_args())
    devices = starting.prepare(args)
    dataset = data.load_dataset(args)
    training = training_loop.Training(args, dataset, devices)
    times = training_loop.take_turns({"": training}, args.rounds)

    print(
        f"{training_loop.describe(args)}; {keras.backend.backend()} on "
        f"{report.describe_devices(devices)}; {args.rounds} rounds of {args.steps} steps"
    )
    rows = [
        {
            "input": kind,
            "ms/step": f"{1000 * min(seconds) / args.steps:.1f}",
            "images/s": f"{training.images / min(seconds):.1f}",
            "median": f"{training.images / statistics.median(seconds):.1f}",
            "slowest": f"{training.images / max(seconds):.1f}",
        }
        for (_, kind), seconds in times.items()
    ]
    print(report.table(rows))
    constant, real = (min(times["", kind]) for kind in training_loop.KINDS)
    ratio = constant / real
    print(f"real / constant: {ratio:.3f} of the speed; waiting for data: {max(0, 1 - ratio):.1%}")


if __name__ == "__main__":
    run_script(main)
