"""Several processes train what one does, stop together and go on."""

import csv
import json
import signal
import socket

import numpy as np
import pytest

import models

from ...programs import Program
from ..shared_run import EQUAL, TRAININGS


@pytest.fixture(scope="module")
def start():
    """Starts programs that train together, and ends what is left of them."""
    started = []

    def run(program, *flags, processes=1, pause=0):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        group = []
        for index in range(processes):
            place = ["--coordinator", f"127.0.0.1:{port}", "--num_processes", str(processes)]
            place += ["--process_id", str(index)]
            process = Program(
                f"tests.training.{program}",
                *flags,
                *(place if processes > 1 else []),
                backend="jax",
                environment={"PAUSE": str(pause)},
            )
            started.append(process)
            group.append(process)
        return group

    pytest.importorskip("jax")
    yield run
    for process in started:
        process.kill()
        process.communicate()


def finish(group, status=0):
    """What each process has written, of output and of errors."""
    ends = [process.communicate(timeout=600) for process in group]
    assert [process.returncode for process in group] == [status] * len(group), ends
    return ends


@pytest.fixture(scope="module")
def alone(start, tmp_path_factory):
    """What one process finds, by training and devices."""
    directory = tmp_path_factory.mktemp("alone")
    finish(start("shared_run", directory, "--gpus", 4, "--simulate_devices"))
    return {path.stem: np.load(path) for path in directory.iterdir()}


def test_2_processes_of_2_devices_train_what_4_devices_and_1_do(start, alone, tmp_path):
    flags = "--gpus 4 --gpu_merge --simulate_devices".split()
    group = start("shared_run", tmp_path, *flags, processes=2)
    assert finish(group) == [("", "")] * 2
    for training in TRAININGS:
        found = np.load(tmp_path / f"{training}-2x2.npz")
        assert len(found["losses"]) >= 50
        assert np.isfinite(found["weights"]).all()
        for devices in "1x4", "1x1":
            expected = alone[f"{training}-{devices}"]
            tolerances = {"losses": 5e-6, "weights": 5e-5, "history": 5e-6, "scores": 5e-6}
            for name, atol in tolerances.items():
                np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=atol)


def read_history(directory):
    with open(directory / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["seconds"], row["images_per_second"]
    return [[float(value) for value in row.values()] for row in rows]


def test_a_stopped_training_goes_on_and_ends_as_one_process_does(start, alone, tmp_path):
    command = [
        "small_command",
        *"--dataset digits-sub3 --batch_size 100 --lr_schedule SGD --sgd_schedule 1:0.01,5".split(),
        *EQUAL,
        *"--gpus 4 --simulate_devices --read_workers 1 --snapshot_best".split(),
        *f"--snapshot {tmp_path}/s --snapshot_every 0.1 --log_dir {tmp_path}/log".split(),
        *f"--model_dump {tmp_path}/m.keras --feature_dump {tmp_path}/f.npz".split(),
    ]
    # JAX looks for a signal once in a second.
    group = start(*command, processes=2, pause=0.1)
    group[0].wait_for("Epoch 1/5")
    group[1].send_signal(signal.SIGTERM)
    first, second = finish(group, status=143)
    assert "interrupted by SIGTERM; " in first[1]
    assert "; to resume: python" in first[1]
    assert second[0] == ""

    first, second = finish(start(*command, processes=2))
    assert first[0].count("resuming from") == 1
    assert second == ("", "")
    expected = alone["plain-1x1"]
    np.testing.assert_allclose(read_history(tmp_path / "log"), expected["history"], atol=5e-6)
    result = json.loads((tmp_path / "log" / "result.json").read_text())
    assert result["distribution"]["processes"] == 2
    np.testing.assert_allclose([*result["final"].values()], expected["scores"], atol=5e-6)
    best, last = (models.load_model(tmp_path / name) for name in ("s.best.keras", "m.keras"))
    assert best.count_params() == last.count_params()
    weights = [np.ravel(variable) for variable in last.variables]
    weights = np.concatenate(weights)
    np.testing.assert_allclose(weights, expected["weights"][: len(weights)], atol=5e-5)
    assert np.load(tmp_path / "f.npz")["features"].shape == (797, 10)
