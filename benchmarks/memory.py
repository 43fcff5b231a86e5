"""What it saves that the memory a step frees is kept for the next one, in processor time.

    python benchmarks/memory.py --dataset CIFAR-100 --data_root DIR --architecture fast-cnn \\
        --batch_size 50 --steps 10

Trains one model on a constant batch: first with the limits for `malloc` that TensorFlow sets, then
with those of `training.memory` (not in turns, as blocks once kept stay in use). Takes the flags of
a training.
"""

import resource
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training import quiet_start  # noqa: F401  # before Keras

# isort: split
from benchmarks import training_loop
from training import data, memory, starting
from training.reporting import report
from utils import run_script


def main() -> None:
    parser = training_loop.training_parser(__doc__.split("\n")[0])
    args = training_loop.check_arguments(parser.parse_args())
    devices = starting.prepare(args)
    training = training_loop.Training(args, data.load_dataset(args), devices)
    measured = {"given back": [], "kept": []}
    for way, set_limits in zip(measured, (lambda: None, memory.keep_freed), strict=True):
        for turn in range(args.rounds + 1):
            before, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
            training.seconds(training_loop.CONSTANT, set_limits)
            after, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - wall
            if turn:
                changes = [
                    getattr(after, name) - getattr(before, name)
                    for name in ("ru_utime", "ru_stime", "ru_minflt")
                ]
                measured[way].append([wall, *changes, after.ru_maxrss / 2**20])
    print(f"{training_loop.describe(args)}; {args.rounds} rounds of {args.steps} steps, medians")
    rows = []
    for way, rounds in measured.items():
        wall, user, system, faults, peak = map(statistics.median, zip(*rounds, strict=True))
        rows.append(
            {
                "freed memory is": way,
                "ms/step": f"{1000 * wall / args.steps:.0f}",
                "CPU ms/step": f"{1000 * (user + system) / args.steps:.0f}",
                "of it system": f"{1000 * system / args.steps:.0f}",
                "page faults/step": f"{faults / args.steps:.0f}",
                "peak GB so far": f"{peak:.2f}",
            }
        )
    print(report.table(rows))


if __name__ == "__main__":
    run_script(main)
