"""Trains the small network as one of several processes, or alone, on simulated devices.

python -m tests.training.shared_run DIRECTORY --gpus N FLAGS

writes losses, weights and scores of two trainings into `NAME-PROCESSESxDEVICES.npz`, a process
alone also of the same trainings on a single device.
"""

import sys

import numpy as np

from training.devices import processes
from training.devices.flags import check_process_arguments
from training.flags import arguments
from utils import run_script

EQUAL = "--bn_groups 4 --embedding onehot --cls_weight 0.1".split()
TRAININGS = {"plain": ["--epochs", "5"], "accumulated": "--epochs 1 --accumulate_steps 5".split()}


def main():
    directory, *flags = sys.argv[1:]
    args = arguments.training_parser().parse_args([*EQUAL, *flags])
    check_process_arguments(args)
    with processes.together(processes.find_group(args)) as group:
        from training.devices import distribution

        from .equal_runs import SCHEDULE, StepLosses, results
        from .small_run import ONE_DEVICE, Run

        all_devices = distribution.choose(args, group)
        for devices in [all_devices] if group else [all_devices, ONE_DEVICE]:
            for name, own in TRAININGS.items():
                step_losses = StepLosses()
                given = [*SCHEDULE, *EQUAL, *own, *flags, "--gpus", str(devices.replicas)]
                with devices.scope():
                    found = results(Run(given, step_losses, devices), step_losses)
                if devices.share[0] == 0:
                    count = devices.share[1]
                    np.savez(f"{directory}/{name}-{count}x{devices.replicas // count}", **found)


if __name__ == "__main__":
    run_script(main)
