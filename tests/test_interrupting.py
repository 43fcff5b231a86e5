"""Killing and resuming `learn_classifier.py`, as a cluster does it."""

import csv
import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


def command(out):
    return [
        *(sys.executable, "learn_classifier.py"),
        *["--dataset", "digits-sub3", "--embedding", "onehot"],
        *["--batch_size", "90", "--epochs", "5"],
        *["--deterministic", "--read_workers", "2", "--no_progress", "--snapshot_every", "0.3"],
        *f"--snapshot {out}/s --log_dir {out}/log --weight_dump {out}/w.weights.h5".split(),
    ]


def start(out):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(out), cwd=ROOT, **pipes)


def wait_for(process, text):
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"ended without {text!r}: {process.stderr.read()}")


def finish(process):
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output


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
    finish(start(whole))

    process = start(broken)
    wait_for(process, "Epoch 2/5")
    process.kill()
    process.communicate()

    process = start(broken)
    wait_for(process, "resuming from ")
    wait_for(process, "Epoch 3/5")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 143, errors
    last = errors.splitlines()[-1]
    assert last.startswith("learn_classifier.py: interrupted by SIGTERM; ")
    assert "Traceback" not in errors
    # The line says the command.
    resume = shlex.split(last.partition("; to resume: ")[2])
    assert resume == ["python", *command(broken)[1:]]

    output = finish(start(broken))
    assert output.count("resuming from") == 1
    np.testing.assert_equal(result_of(broken), result_of(whole))

    # A changed argument is told before anything is loaded.
    done = subprocess.run(
        [*command(broken), "--seed", "1"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "--seed 0 became 1" in done.stderr


def test_a_second_signal_ends_at_once():
    """As does a first one where there is nothing to finish."""
    script = """
import os, signal
from training.resuming.signals import StopSignals
stop = StopSignals()
stop.install()
with stop.deferred():
    os.kill(os.getpid(), signal.SIGINT)
    print("goes on", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("not reached", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "goes on\n")
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
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (143, "")
    assert done.stderr == "-c: interrupted by SIGTERM\n"
