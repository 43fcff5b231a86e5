"""Real processes on the loopback interface, with JAX alone; and what tells them of each other."""

import signal
import socket
from argparse import Namespace

import pytest

from training.devices import processes
from training.devices.flags import check_process_arguments
from training.flags import arguments
from utils import UsageError, UserError

from ...programs import Program

ENDED_BY_JAX = "JAX distributed service detected fatal errors"
NONE = {"coordinator": None, "num_processes": None, "process_id": None}

# Each step is a sum over the devices of all processes, which waits for all of them.
PROGRAM = """
import os, signal, sys, time
from argparse import Namespace
from training.devices import processes
from training.resuming import signals
from utils import UsageError, UserError, run_script

coordinator, count, index, event, path = sys.argv[1:]
index = int(index)
place = {"coordinator": None, "num_processes": None, "process_id": None}
if coordinator != "launcher":
    place = {"coordinator": coordinator, "num_processes": int(count), "process_id": index}

def act():
    if event == "user error":
        raise UserError("images/x.jpg: cannot be read")
    if event == "bug":
        raise ZeroDivisionError("of ours")
    if event.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, event))

def main():
    with processes.together(processes.find_group(Namespace(**place))) as group:
        stop = signals.StopSignals(group)
        stop.install()
        import jax
        import numpy as np
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", 2)
        group.join(None)
        assert (group.index, group.count) == (index, int(count))
        assert group.gather([index] * index) == [[i] * i for i in range(group.count)]
        try:
            group.check_same({"classes": "same", "labels": index})
            raise AssertionError
        except UserError as error:
            assert "process 1 has labels 1, process 0 has 0; " in str(error)
        group.check_same({"--batch_size": 64 if event == "other flags" else 96}, UsageError)
        print("met", flush=True)
        os.system("echo printed by C")
        mesh = jax.sharding.Mesh(np.array(jax.devices()), ("batch",))
        shared = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
        numbers = jax.make_array_from_process_local_data(shared, np.arange(4.0) + 4 * index)
        add = jax.jit(lambda x: x.sum())
        with stop.deferred():
            # JAX looks for a signal once in a second.
            for step in range(60 if event == "nothing" and path == "" else 1000):
                if stop.is_due():
                    open(f"{path}.{index}", "w").write(str(step))
                    stop.stop(f" at step {step}")
                if step == 9:
                    act()
                total = float(add(numbers))
                time.sleep(0.01 if index else 0.02)
        print("sum", total, flush=True)
        time.sleep(0.5 * (index == 0))

run_script(main)
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def start():
    """Starts a group of processes, and ends what is left of them; process i has the i-th event."""
    pytest.importorskip("jax")
    started = []

    def run(*events, path="", slurm=False):
        coordinator, group = f"127.0.0.1:{free_port()}", []
        for index, event in enumerate(events):
            environment = {}
            if slurm:
                environment |= SLURM | {
                    "SLURM_STEP_NODELIST": "localhost",
                    "SLURM_NTASKS": str(len(events)),
                    "SLURM_STEP_NUM_TASKS": str(len(events)),
                    "SLURM_PROCID": str(index),
                    "SLURM_LOCALID": str(index),
                    "JAX_COORDINATOR_PORT": coordinator.rpartition(":")[2],
                }
            place = ["launcher" if slurm else coordinator, len(events), index]
            process = Program(
                *("-c", PROGRAM, *place, event, path), backend="jax", environment=environment
            )
            started.append(process)
            group.append(process)
        return group

    yield run
    for process in started:
        process.kill()
        process.communicate()


def ends(group):
    """The status, output and errors of each process."""
    written = [process.communicate(timeout=60) for process in group]
    return [(process.returncode, *end) for process, end in zip(group, written, strict=True)]


def test_processes_compute_together_and_only_the_first_prints(start):
    first, second = ends(start("nothing", "nothing"))
    assert first == (0, "met\nsum 28.0\n", "")
    assert second == (0, "", "")


def test_other_flags_are_named_by_all(start):
    line = "-c: error: process 1 has --batch_size 64, process 0 has 96; give all the same"
    for status, output, errors in ends(start("nothing", "other flags")):
        assert (status, output) == (2, "")
        assert errors.startswith(line)
        assert len(errors.splitlines()) == 1


def test_one_that_fails_tells_why_and_ends_all(start):
    groups = {
        (0, "user error"): start("user error", "nothing", path="many"),
        (1, "user error"): start("nothing", "user error", path="many"),
        (1, "bug"): start("nothing", "bug", path="many"),
    }
    for (index, event), group in groups.items():
        written = ends(group)
        status, _, errors = written[index]
        assert status == 1
        if event == "bug":
            assert "ZeroDivisionError: of ours" in errors
        else:
            assert errors == "-c: error: images/x.jpg: cannot be read\n"
        assert written[1 - index][0] != 0
        assert ENDED_BY_JAX in written[1 - index][2]


def test_one_that_is_killed_or_hangs_ends_all(start):
    groups = {
        (0, -signal.SIGKILL): start("SIGKILL", "nothing", path="many"),
        (1, -signal.SIGKILL): start("nothing", "SIGKILL", path="many"),
        (1, None): start("nothing", "SIGSTOP", path="many"),
    }
    for (index, status), group in groups.items():
        _, errors = group[1 - index].communicate(timeout=60)
        assert group[1 - index].returncode == -signal.SIGABRT
        assert ENDED_BY_JAX in errors
        assert group[index].poll() == status


@pytest.mark.parametrize(
    ("events", "status", "slurm"),
    [
        (["nothing", "SIGTERM", "nothing"], 143, False),
        (["SIGINT", "nothing"], 130, True),
        (["SIGTERM", "SIGTERM"], 143, False),
    ],
    ids=["one", "first", "all"],
)
def test_a_signal_ends_all_at_the_same_step(start, tmp_path, events, status, slurm):
    path = tmp_path / "step"
    written = ends(start(*events, path=path, slurm=slurm))
    assert [end[0] for end in written] == [status] * len(events), written
    steps = {(tmp_path / f"step.{i}").read_text() for i in range(len(events))}
    assert len(steps) == 1
    assert 9 < int(*steps) < 999
    name = "SIGTERM" if status == 143 else "SIGINT"
    told = [f"-c: interrupted by {name} at step" in errors for _, _, errors in written]
    assert told == [True] + [False] * (len(events) - 1)
    lines = [line for _, _, errors in written for line in errors.splitlines()]
    assert [line for line in lines if "SIG" not in line] == []


# ---------------------------------------------------------------- flags and launchers


def test_a_port_in_use_is_named(monkeypatch):
    pytest.importorskip("jax")
    with socket.create_server(("127.0.0.1", 0)) as server:
        coordinator = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match=r"cannot meet .*Address already in use"):
            processes.Group(0, 2, 0, coordinator).join(None)


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
        (SLURM, {}, (1, 2, 0, None)),
        (SLURM, {"num_processes": 1}, None),
        (SLURM | {"KERAS_BACKEND": "tensorflow"}, {}, None),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, {}, None),
        # Of a batch script: the job has several tasks, this is none of them.
        ({k: v for k, v in SLURM.items() if "STEP" not in k}, {}, None),
        (OPEN_MPI, {}, (3, 4, 1, None)),
        (
            SLURM,
            {"coordinator": "a:1", "num_processes": 3, "process_id": 2},
            (2, 3, 0, "a:1"),
        ),
    ],
)
def test_launchers_are_found(monkeypatch, variables, flags, expected):
    for name in (*SLURM, *OPEN_MPI, "JAX_COORDINATOR_PORT", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    group = processes.find_group(Namespace(**NONE | flags))
    found = group and (group.index, group.count, group.local_index, group.coordinator)
    assert found == expected


def test_a_launcher_that_jax_does_not_know_is_told(monkeypatch):
    pytest.importorskip("jax")
    for name in SLURM:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.delenv("OMPI_MCA_orte_hnp_uri", raising=False)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    group = processes.find_group(Namespace(**NONE))
    with pytest.raises(UserError, match=r"cannot meet .coordinator_address"):
        group.join(None)
    for number, handler in handlers.items():
        signal.signal(number, handler)
