"""Killing and resuming `learn_classifier.py`, with a small network, as a cluster does it."""

import csv
import json
import shlex
import signal

import h5py
import numpy as np

from .programs import Program, run


def command(out):
    return [
        "tests.training.small_command",
        *["--dataset", "digits-sub3", "--embedding", "onehot"],
        *["--batch_size", "90", "--epochs", "5"],
        *["--deterministic", "--read_workers", "2", "--no_progress", "--snapshot_every", "0.3"],
        *f"--snapshot {out}/s --log_dir {out}/log --weight_dump {out}/w.weights.h5".split(),
    ]


def result_of(out):
    """Everything that has to be the same: all but times and the names of the outputs."""
    result = json.loads((out / "log" / "result.json").read_text())
    for name in ("wall_seconds", "arguments", "command", "started"):
        del result[name]
    with open(out / "log" / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    weights = {}
    with h5py.File(out / "w.weights.h5") as file:
        file.visititems(
            lambda name, item: (
                weights.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    for row in [*rows, result["best"]]:
        assert float(row.pop("seconds")) > 0
        assert float(row.pop("images_per_second")) > 0
    return result, rows, weights


def test_a_killed_and_a_stopped_run_end_as_an_uninterrupted_one(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for out in whole, broken:
        out.mkdir()
    run(*command(whole))

    process = Program(*command(broken), environment={"PAUSE": "0.05"})
    process.wait_for("Epoch 2/5")
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    process = Program(*command(broken), environment={"PAUSE": "0.05"})
    process.wait_for("resuming from ")
    process.wait_for("Epoch 3/5")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 143, errors
    last = errors.splitlines()[-1]
    assert last.startswith("learn_classifier.py: interrupted by SIGTERM; ")
    assert "Traceback" not in errors
    # The line says the command.
    resume = shlex.split(last.partition("; to resume: ")[2])
    assert resume == ["python", "learn_classifier.py", *command(broken)[1:]]

    assert run(*command(broken)).stdout.count("resuming from") == 1
    np.testing.assert_equal(result_of(broken), result_of(whole))

    # A changed argument is told before anything is loaded.
    done = run(*command(broken), "--seed", "1", status=2)
    assert "--seed 0 became 1" in done.stderr


def test_a_second_signal_ends_at_once():
    """As does a first one where there is nothing to finish."""
    script = """
import os, signal, time
from training.resuming import signals
stop = signals.StopSignals()
stop.install()
with stop.deferred():
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)  # a launcher's, for the same wish
    print("goes on", flush=True)
    time.sleep(signals._SAME_WISH + 0.1)
    os.kill(os.getpid(), signal.SIGINT)
    print("not reached", flush=True)
"""
    assert run("-c", script, status=130).stdout == "goes on\n"
    script = """
import os, signal
from training.resuming.signals import StopSignals
from utils import run_script
def main():
    StopSignals().install()
    os.kill(os.getpid(), signal.SIGTERM)
    print("not reached", flush=True)
run_script(main)
"""
    done = run("-c", script, status=143)
    assert done.stdout == ""
    assert done.stderr == "-c: interrupted by SIGTERM\n"
