"""Several processes train what one does, stop together and go on."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start():
    """Starts programs that train together, and ends what is left of them."""
    started = []

    def run(*command, processes=1):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        group = []
        for index in range(processes):
            flags = ["--coordinator", f"127.0.0.1:{port}", "--num_processes", str(processes)]
            flags += ["--process_id", str(index)]
            process = subprocess.Popen(
                [sys.executable, *command, *(flags if processes > 1 else [])],
                cwd=ROOT,
                env={**os.environ, "KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            started.append(process)
            group.append(process)
        return group

    pytest.importorskip("jax")
    yield run
    for process in started:
        process.kill()
        process.communicate()


def finish(group):
    ends = [process.communicate(timeout=240) for process in group]
    if any(process.returncode for process in group):
        pytest.fail("\n".join(map("".join, ends)))
    return ends[0][0]


@pytest.mark.parametrize("flags", [(), ("--accumulate_steps", "5", "--epochs", "1")])
def test_2_processes_of_2_devices_train_what_4_devices_and_1_do(start, tmp_path, flags):
    flags = [*"--bn_groups 4 --epochs 5 --embedding onehot --cls_weight 0.1".split(), *flags]
    found = {}
    for processes, devices in ((2, 4), (1, 4), (1, 1)):
        out = tmp_path / f"{processes}-{devices}.npz"
        program = ["-m", "tests.training.shared_run", str(out), *flags, "--gpus", str(devices)]
        simulated = ["--simulate_devices"] if devices > 1 else []
        assert finish(start(*program, *simulated, processes=processes)) == "trained\n"
        found[processes, devices] = np.load(out)
    expected = found.pop((1, 1))
    assert len(expected["losses"]) >= 50
    assert np.isfinite(expected["weights"]).all()
    for other in found.values():
        for name, atol in (("losses", 5e-6), ("weights", 5e-5), ("history", 5e-6)):
            np.testing.assert_allclose(other[name], expected[name], rtol=0, atol=atol)
        np.testing.assert_allclose(other["scores"], expected["scores"], rtol=0, atol=5e-6)


def command(out):
    return [
        "learn_classifier.py",
        *"--dataset digits-sub3 --batch_size 90 --sgd_schedule 1:0.001,2".split(),
        *"--lr_schedule SGD --gpus 2 --simulate_devices --read_workers 1 --no_progress".split(),
        *f"--snapshot {out}/s --snapshot_every 0.1 --snapshot_best --log_dir {out}/log".split(),
        *f"--model_dump {out}/m.keras --feature_dump {out}/f.npz".split(),
    ]


def test_a_stopped_training_goes_on(start, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for out in whole, broken:
        out.mkdir()
    finish(start(*command(whole)))  # one process with two devices

    group = start(*command(broken), processes=2)
    for line in group[0].stdout:
        if "Epoch 1/2" in line:
            break
    group[1].send_signal(signal.SIGTERM)
    ends = [process.communicate(timeout=240) for process in group]
    assert [process.returncode for process in group] == [143, 143], ends
    assert "interrupted by SIGTERM; " in ends[0][1]
    assert "; to resume: python learn_classifier.py" in ends[0][1]
    assert ends[1][0] == ""

    output = finish(start(*command(broken), processes=2))
    assert output.count("resuming from") == 1
    results = []
    for out, processes in (whole, 1), (broken, 2):
        result = json.loads((out / "log" / "result.json").read_text())
        assert result["distribution"]["processes"] == processes
        with open(out / "log" / "history.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            del row["seconds"], row["images_per_second"]
        values = [float(value) for row in rows for value in row.values()]
        features = np.load(out / "f.npz")["features"]
        results.append([*result["final"].values(), *values, *features.ravel()])
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-5)
