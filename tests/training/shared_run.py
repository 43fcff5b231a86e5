"""Trains as one of several processes, on simulated devices.

python -m tests.training.shared_run OUT.npz FLAGS

writes losses, weights and scores; of several processes the first does.
"""

import sys

import numpy as np

from training import arguments, parsers, processes
from utils import run_script


def main():
    out, *flags = sys.argv[1:]
    args = parsers.training_parser().parse_args(flags)
    arguments.check_process_arguments(args)
    place = processes.find_place(args)
    with processes.together(place, arguments.common_arguments(args)) as group:
        from training import distribution

        from .equal_runs import SCHEDULE, StepLosses, results
        from .small_run import Run

        devices = distribution.choose(args, group)
        step_losses = StepLosses()
        with devices.scope():
            run = Run([*SCHEDULE, *flags], step_losses, devices)
            found = results(run, step_losses)
        print("trained", flush=True)
        if devices.share[0] == 0:
            np.savez(out, **found)


if __name__ == "__main__":
    run_script(main)
