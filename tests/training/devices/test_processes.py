"""Real processes on the loopback interface."""

import os
import signal
import socket
import subprocess
import sys
import threading
from argparse import Namespace
from pathlib import Path

import pytest

from training.devices import processes
from training.devices.flags import check_process_arguments
from training.devices.processes import meeting
from training.flags import arguments
from utils import UsageError, UserError

ROOT = Path(__file__).parents[3]

# Each step is a sum over the devices of all processes, which waits for all of them.
PROGRAM = """
import os, signal, sys, time
from training.devices import processes
from training.resuming import signals
from training.devices.processes import group as ends
from utils import UserError, run_script

coordinator, count, index, event = sys.argv[1], *map(int, sys.argv[2:4]), sys.argv[4]

def act():
    if event == "user error":
        raise UserError("images/x.jpg: cannot be read")
    if event == "bug":
        raise ZeroDivisionError("of ours\\nin two lines")
    if event == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if event == "freeze":
        os.kill(os.getpid(), signal.SIGSTOP)
    if event.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, event))

def main():
    if event == "freeze" or "freeze" in sys.argv[5]:
        ends.ALIVE_SECONDS, ends.SILENCE_SECONDS = 0.5, 3.0
    stop = signals.StopSignals()
    stop.install()
    place = processes.Place(coordinator, count, index)
    with processes.together(place, {}) as group:
        sent = group.broadcast(b"x" * 3_000_001 if index == 0 else b"")
        assert sent == b"x" * 3_000_001
        assert group.broadcast(b"") == b""
        print("met", flush=True)
        os.system("echo printed by C")
        import jax
        import numpy as np
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", 2)
        group.start_jax()
        mesh = jax.sharding.Mesh(np.array(jax.devices()), ("batch",))
        shared = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
        own = np.arange(4.0) + 4 * index
        numbers = jax.make_array_from_process_local_data(shared, own)
        add = jax.jit(lambda x: x.sum())
        with stop.deferred():
            for step in range(60):
                stop.requested = group.stop_here(stop.requested) or stop.requested
                if group.agreed:
                    open(f"{sys.argv[5]}.{index}", "w").write(str(step))
                    stop.stop(f" at step {step}")
                if step == 9:
                    act()
                total = float(add(numbers))
                time.sleep(0.01 if index else 0.02)
        print("sum", total, flush=True)
        time.sleep(0.5 * (index == 0))

run_script(main)
"""

NOTHING = "nothing"


@pytest.fixture
def start():
    """Starts Python processes, and ends what is left of them."""
    started = []

    def run(*argv, script=PROGRAM):
        process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, argv)],
            cwd=ROOT,
            env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def coordinator():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"127.0.0.1:{port}"


def run_all(start, coordinator, events, path=""):
    """The status, output and errors of each process; process i has the i-th event."""
    pytest.importorskip("jax")
    count = len(events)
    group = [start(coordinator, count, i, event, path) for i, event in enumerate(events)]
    ends = [process.communicate(timeout=60) for process in group]
    return [(process.returncode, *end) for process, end in zip(group, ends, strict=True)]


def test_processes_compute_together_and_only_the_first_prints(start, coordinator):
    first, second = run_all(start, coordinator, [NOTHING, NOTHING])
    assert first == (0, "met\nsum 28.0\n", "")
    assert second == (0, "", "")


@pytest.mark.parametrize("index", [0, 1])
def test_all_end_with_the_reason_of_the_one_that_failed(start, coordinator, index):
    events = [NOTHING, NOTHING]
    events[index] = "user error"
    ends = run_all(start, coordinator, events)
    assert [status for status, _, _ in ends] == [1, 1]
    assert ends[index][2] == "-c: error: images/x.jpg: cannot be read\n"
    expected = f"-c: error: process {index} failed: images/x.jpg: cannot be read\n"
    assert ends[1 - index][2] == expected


def test_a_traceback_is_shown_once(start, coordinator):
    first, second = run_all(start, coordinator, [NOTHING, "bug"])
    assert first[::2] == (1, "-c: error: process 1 failed: ZeroDivisionError: of ours\n")
    assert second[0] == 1
    assert "Traceback" in second[2]


@pytest.mark.parametrize("index", [0, 1])
def test_a_killed_process_ends_the_others(start, coordinator, index):
    events = [NOTHING, NOTHING]
    events[index] = "kill"
    ends = run_all(start, coordinator, events)
    assert ends[index][0] == -signal.SIGKILL
    assert ends[1 - index][0] == 1
    expected = f"-c: error: process {index} is gone: it was killed, or its machine is down\n"
    assert ends[1 - index][2] == expected


def test_a_process_that_hangs_ends_the_others(start, coordinator):
    first = start(coordinator, 2, 0, NOTHING, "freeze")
    start(coordinator, 2, 1, "freeze", "")
    pytest.importorskip("jax")
    errors = first.communicate(timeout=60)[1]
    assert first.returncode == 1
    assert errors == "-c: error: process 1 has not been heard from for 3 s\n"


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([NOTHING, "SIGTERM", NOTHING], 143),
        (["SIGINT", NOTHING], 130),
        (["SIGTERM", "SIGTERM"], 143),
    ],
    ids=["one", "first", "all"],
)
def test_a_signal_ends_all_at_the_same_step(start, coordinator, tmp_path, events, status):
    path = tmp_path / "step"
    ends = run_all(start, coordinator, events, path)
    assert [end[0] for end in ends] == [status] * len(events)
    steps = {(tmp_path / f"step.{i}").read_text() for i in range(len(events))}
    assert len(steps) == 1
    assert 9 < int(*steps) < 59
    name = "SIGTERM" if status == 143 else "SIGINT"
    told = [f"-c: interrupted by {name} at step" in errors for _, _, errors in ends]
    assert told == [True] + [False] * (len(events) - 1)
    lines = [line for _, _, errors in ends for line in errors.splitlines()]
    assert [line for line in lines if "SIG" not in line] == []


# ---------------------------------------------------------------- meeting, without JAX


def meet_all(coordinator, monkeypatch, places, facts=None):
    """What each of some processes, here threads, gets out of meeting."""
    monkeypatch.setattr(meeting, "MEETING_SECONDS", 1.0)
    results, connections = {}, []

    def meet(number, count, index):
        try:
            place = processes.Place(coordinator, count, index)
            met = meeting.meet(place, (facts or {}).get(number, {}))
            connections.extend(met[0].values())
            results[number] = processes.Group(place, *met)
        except UserError as error:
            results[number] = error

    threads = [threading.Thread(target=meet, args=(i, *place)) for i, place in enumerate(places)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for connection in connections:
        connection.close()
    return [results[i] for i in range(len(places))]


def test_processes_meet_whatever_else_knocks(coordinator, monkeypatch):
    host, _, port = coordinator.partition(":")

    def knock():
        for _ in range(3):
            try:
                with socket.create_connection((host, int(port))) as connection:
                    connection.sendall(b"GET / HTTP/1.0\n\n")
                return
            except OSError:
                threading.Event().wait(0.1)

    thread = threading.Thread(target=knock)
    thread.start()
    groups = meet_all(coordinator, monkeypatch, [(3, 0), (3, 1), (3, 2)])
    thread.join()
    assert [group.index for group in groups] == [0, 1, 2]
    assert [group.on_this_machine() for group in groups] == [(0, 3), (1, 3), (2, 3)]


def test_who_waits_in_vain_says_for_whom(coordinator, monkeypatch):
    late = "process 2 of 3 did not come within 1 s"
    ends = meet_all(coordinator, monkeypatch, [(3, 0), (3, 1)])
    assert all(late in str(end) for end in ends)
    [end] = meet_all(coordinator, monkeypatch, [(2, 1)])
    assert "no process 0 there within 1 s (Connection refused)" in str(end)
    assert end.exit_status == 1


def test_processes_that_do_not_fit_are_told_so(coordinator, monkeypatch):
    def ends(places, facts=None):
        first, *others = meet_all(coordinator, monkeypatch, places, facts)
        assert str(others[-1]) == str(first)
        assert isinstance(first, UsageError)
        return str(first)

    facts = {0: {"--batch_size": 96}, 1: {"--batch_size": 64}}
    assert "process 1 has --batch_size 64, process 0 has 96" in ends([(2, 0), (2, 1)], facts)
    assert "process 1 has --num_processes 3, process 0 has 2" in ends([(2, 0), (3, 1)])
    assert "--process_id 1: two processes have it" in ends([(3, 0), (3, 1), (3, 1)])


def test_a_port_in_use_is_named(coordinator, monkeypatch):
    host, _, port = coordinator.partition(":")
    with socket.create_server((host, int(port))):
        [end] = meet_all(coordinator, monkeypatch, [(2, 0)])
    assert f"--coordinator {coordinator}: cannot listen there (Address already in use)" in str(end)


# ---------------------------------------------------------------- flags and launchers


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--coordinator a:1 --num_processes 2", "--process_id: missing"),
        ("--process_id 1", "--coordinator and --num_processes: missing"),
        ("--coordinator a:1 --num_processes 2 --process_id 2", "it goes from 0 to 1"),
        ("--coordinator a --num_processes 2 --process_id 1", "expected HOST:PORT"),
        ("--coordinator :1 --num_processes 2 --process_id 1", "expected HOST:PORT"),
        ("--coordinator a:70000 --num_processes 2 --process_id 1", "expected HOST:PORT"),
    ],
)
def test_wrong_flags_are_refused(monkeypatch, flags, expected):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    args = arguments.training_parser().parse_args(flags.split())
    with pytest.raises(UsageError, match=expected):
        check_process_arguments(args)


def test_tensorflow_is_refused(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    flags = "--coordinator a:1 --num_processes 2 --process_id 1"
    args = arguments.training_parser().parse_args(flags.split())
    with pytest.raises(UsageError, match="KERAS_BACKEND=jax"):
        check_process_arguments(args)


SLURM = {
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_NODELIST": "node[07-08]",
    "SLURM_NTASKS": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}


@pytest.mark.parametrize(
    ("variables", "flags", "expected"),
    [
        ({}, {}, None),
        (SLURM, {}, processes.Place("node07:61517", 2, 1)),
        (SLURM, {"num_processes": 1}, None),
        (SLURM | {"KERAS_BACKEND": "tensorflow"}, {}, None),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, {}, None),
        # Of a batch script: the job has several tasks, this is none of them.
        ({k: v for k, v in SLURM.items() if "STEP" not in k}, {}, None),
        (OPEN_MPI, {}, processes.Place("10.96.0.1:62624", 4, 3)),
        (
            SLURM,
            {"coordinator": "a:1", "num_processes": 3, "process_id": 2},
            processes.Place("a:1", 3, 2),
        ),
    ],
)
def test_launchers_are_found(monkeypatch, variables, flags, expected):
    if expected:
        pytest.importorskip("jax")
    for name in (*SLURM, *OPEN_MPI, "JAX_COORDINATOR_PORT", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    none = {"coordinator": None, "num_processes": None, "process_id": None}
    assert processes.find_place(Namespace(**none | flags)) == expected


def test_a_launcher_that_jax_does_not_know_is_named(monkeypatch):
    pytest.importorskip("jax")
    for name in SLURM:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.delenv("OMPI_MCA_orte_hnp_uri", raising=False)
    none = {"coordinator": None, "num_processes": None, "process_id": None}
    with pytest.raises(UserError, match="Open MPI started several processes"):
        processes.find_place(Namespace(**none))
