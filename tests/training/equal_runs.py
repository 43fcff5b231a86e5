"""Trains on simulated devices; a program, as devices are split before the first computation.

python -m tests.training.equal_runs KILLS FLAGS

prints as JSON how far trainings on 1, 2 and 4 devices are apart; fails unless one on 2 devices that
is killed KILLS times, from 1 to 3, ends as if it were not, and in float32 says how far off it ends
if 4 continue it.
"""

import contextlib
import functools
import json
import shutil
import sys
import tempfile

import keras
import numpy as np

from training.devices import distribution
from training.reporting import evaluation

from .small_run import ONE_DEVICE, TIMES, At, Killed, Run, assert_same

SCHEDULE = "--lr_schedule SGD --sgd_schedule 1:0.01,99".split()


class StepLosses(keras.callbacks.Callback):
    """The mean loss since the epoch began, after every step."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["mean_loss"]))


@functools.cache
def devices(number, merge_on_devices):
    cpus = [f"cpu:{i}" for i in range(number)]
    return ONE_DEVICE if number == 1 else distribution.over(cpus, merge_on_devices)


def start(flags, number, interruption=None, **options):
    flags = ["--bn_groups", "4", "--gpus", str(number), *SCHEDULE, *flags]
    return Run(flags, interruption, devices(number, "--gpu_merge" in flags), **options)


def results(run, step_losses):
    scores = evaluation.evaluate(run.model, *run.test).scores
    rows = [{k: v for k, v in row.items() if k not in TIMES} for row in run.history.rows]
    return {
        "losses": np.array(step_losses.losses),
        "weights": np.concatenate([array.ravel() for array in run.variables]),
        "history": np.array([list(row.values()) for row in rows]),
        "scores": np.array(list(scores.values())),
    }


def resume(kills, flags, whole):
    """Whether a run that is killed ends as the whole one, and how far off on other devices."""
    with tempfile.TemporaryDirectory() as directory:
        snapshot = f"{directory}/s"
        kept = [*flags, "--snapshot", snapshot, "--snapshot_every", "1e-9"]
        places = [At(1, 7), At(0, 0, in_evaluation=True), At(0, 4)]
        for place in reversed(places[:kills]):
            with contextlib.suppress(Killed):
                start(kept, 2, place)
                raise AssertionError(f"not killed at {place.place}")
        shutil.copy(snapshot, f"{directory}/copy")
        assert_same(start(kept, 2, anew=True), whole)
        if keras.config.dtype_policy().name != "float32":
            return None  # the last digits say nothing
        other = start([*flags, "--snapshot", f"{directory}/copy"], 4)
    pairs = zip(other.variables, whole.variables, strict=True)
    return {
        "weights": max(float(np.abs(array - expected).max()) for array, expected in pairs),
        "loss": abs(other.rows[-1]["loss"] - whole.rows[-1]["loss"]),
    }


def main():
    kills, *flags = sys.argv[1:]
    distribution.simulate_devices(4)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # It rewrites the graphs of all devices, for seconds; their sums are the same.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    if "--precision" in flags:
        keras.config.set_dtype_policy(flags[flags.index("--precision") + 1])
    flags = [*"--epochs 2 --batch_size 40".split(), *flags]
    runs, found = {}, {}
    for number in 1, 2, 4:
        step_losses = StepLosses()
        runs[number] = start(flags, number, step_losses)
        found[number] = results(runs[number], step_losses)
    one, *others = found.values()
    report = {"steps": len(one["losses"]), "finite": bool(np.isfinite(one["weights"]).all())}
    for name, values in one.items():
        report[name] = max(float(np.abs(other[name] - values).max()) for other in others)
    report["on_others"] = resume(int(kills), flags, runs[2])
    print(json.dumps(report))


if __name__ == "__main__":
    main()
