"""Several processes that train one network, on one machine or on many; on JAX only.

They meet at process 0, which listens where all know, and keep their connections to it: by these
all learn at once, and with the reason, that one has failed or was killed, and agree on the step
after which a signal ends the training. What is computed goes through `jax.distributed`; left to
itself that would notice a killed process after minutes, and end the others with a trace of C++.

Nothing here imports Keras or, before `Group.start_jax`, JAX where flags say what to join.
"""

import atexit
import contextlib
import importlib.util
import io
import ipaddress
import json
import logging
import os
import platform
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training import snapshots
from training.signals import Interrupted
from utils import UsageError, UserError

MEETING_SECONDS = 60.0
ALIVE_SECONDS = 5.0
SILENCE_SECONDS = 30.0
# All are known to be there; one that comes later is still importing from a slow disk.
_JAX_SECONDS = 600
# What the others get to end themselves, and process 0 to hear of it.
_LEAVING_SECONDS = 5.0
_LONGEST_MESSAGE = _PART = 2**20

# Outlives process 0: a moment, or where that was killed, until the others have noticed.
# Signals are for those that train.
_SERVICE = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
from jaxlib import _jax
service = _jax.get_distributed_runtime_service(sys.argv[1], int(sys.argv[2]), heartbeat_timeout=100)
print("ready", flush=True)
all_have_left = sys.stdin.read()
time.sleep(1 if all_have_left else float(sys.argv[3]))
os._exit(0)
"""


@dataclass(frozen=True)
class Place:
    """Which of how many processes this is, and the address of process 0, `HOST:PORT`."""

    coordinator: str
    count: int
    index: int

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.coordinator.rpartition(":")
        return host.strip("[]"), int(port)


def find_place(args: Namespace) -> Place | None:
    """The place that the flags give, or else Slurm, Open MPI or Kubernetes; `None` if alone.

    A launcher counts only where it started several processes as one step: a script that Slurm
    runs alone, or with `srun --ntasks 1`, is alone. `--num_processes 1` says so too.

    Args:
        args: `coordinator`, `num_processes` and `process_id`, checked.

    Raises:
        UserError: A launcher started several processes, but JAX cannot tell where they meet.
    """
    if args.num_processes == 1:
        return None
    if args.coordinator:
        return Place(args.coordinator, args.num_processes, args.process_id)
    if os.environ.get("KERAS_BACKEND") != "jax":
        return None
    return _launched()


def _launched() -> Place | None:
    variables = os.environ
    if int(variables.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        launcher, name = "Slurm", "SlurmCluster"
    elif int(variables.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        launcher, name = "Open MPI", "OmpiCluster"
    elif (
        {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= variables.keys()
        and importlib.util.find_spec("kubernetes")  # JAX asks the cluster through it
    ):
        launcher, name = "Kubernetes", "K8sCluster"
    else:
        return None
    # What `jax.distributed.initialize` finds by these, it does not tell before it has joined.
    from jax._src import clusters

    cluster = getattr(clusters, name)
    try:
        if not cluster.is_env_present():
            raise RuntimeError("it sets none of the variables that JAX knows")
        port = variables.get("JAX_COORDINATOR_PORT")
        coordinator = cluster.get_coordinator_address(int(MEETING_SECONDS), port)
        place = Place(coordinator, cluster.get_process_count(), cluster.get_process_id())
    except (RuntimeError, ValueError, LookupError, OSError) as error:
        raise UserError(
            f"{launcher} started several processes, but JAX cannot find where they meet ({error}); "
            "give --coordinator, --num_processes and --process_id, or --num_processes 1 for "
            "processes that do not belong together"
        ) from None
    return place if place.count > 1 else None


class _Connection:
    """Messages, which are JSON objects in lines, over a socket; several threads may send."""

    def __init__(self, sock: socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = sock
        self.closed = threading.Event()
        self._file = sock.makefile("rb")
        self._sending = threading.Lock()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def send(self, **message: Any) -> None:
        """Sends, or does nothing where nobody is left to hear it; whoever receives tells that."""
        with contextlib.suppress(OSError), self._sending:
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        """The next message.

        Raises:
            OSError: The other end is gone, or was silent for the socket's timeout.
            ValueError: What came is no message.
        """
        line = self._file.readline(_LONGEST_MESSAGE)
        if not line.endswith(b"\n"):
            raise ConnectionError("it closed its connection")
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("no message")
        return message

    def send_bytes(self, data: bytes) -> None:
        """Announces bytes and sends them, in parts, each of which may take the socket's timeout."""
        with contextlib.suppress(OSError), self._sending:
            self.socket.sendall(json.dumps({"size": len(data)}).encode() + b"\n")
            for start in range(0, len(data), _PART):
                self.socket.sendall(data[start : start + _PART])

    def receive_bytes(self, size: int) -> bytes:
        """The announced bytes.

        Raises:
            OSError: As `receive`.
        """
        data = self._file.read(size)
        if len(data) < size:
            raise ConnectionError("it closed its connection")
        return data


def meet(place: Place, facts: dict[str, Any]) -> "Group":
    """Waits until all processes are there, for `MEETING_SECONDS` at most.

    Args:
        place: This process.
        facts: What has to be the same in all, by what to call it in a message; JSON values.

    Raises:
        UserError: Some did not come, there is no process 0, or the processes do not fit.
    """
    hello = {
        "process": place.index,
        "processes": place.count,
        "facts": facts,
        "host": platform.node(),
        "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }
    if place.index == 0:
        connections, hellos = _gather(place, hello)
        machines = [[hello["host"], hello["devices"]] for hello in hellos]
        welcome = {"port": _free_port(place.address[0]), "machines": machines}
        for connection in connections.values():
            connection.send(**welcome)
    else:
        connection = _reach(place)
        connection.send(**hello)
        try:
            welcome = connection.receive()
        except (OSError, ValueError) as error:
            connection.close()
            raise UserError(
                f"--coordinator {place.coordinator}: process 0 did not answer ({error})"
            ) from None
        if "failed" in welcome:
            connection.close()
            raise UsageError(welcome["failed"])
        connections = {0: connection}
    for connection in connections.values():
        connection.socket.settimeout(SILENCE_SECONDS)
    return Group(place, connections, welcome)


def _gather(place: Place, own: dict) -> tuple[dict[int, _Connection], list[dict]]:
    """Process 0's side: a connection to, and the first message of, every other process."""
    connections: dict[int, _Connection] = {}
    hellos = {0: own}
    deadline = time.monotonic() + MEETING_SECONDS
    with _listen(place) as server:
        while len(hellos) < place.count:
            server.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                connection = _Connection(server.accept()[0])
            except TimeoutError:
                missing = sorted(set(range(place.count)) - hellos.keys())
                problem = (
                    f"--coordinator {place.coordinator}: process {', '.join(map(str, missing))} of "
                    f"{place.count} did not come within {MEETING_SECONDS:.0f} s; start all of them "
                    "with the same --coordinator and --num_processes"
                )
                _send_away(connections.values(), problem)
                raise UserError(problem) from None
            connection.socket.settimeout(_LEAVING_SECONDS)
            try:
                hello = connection.receive()
                index = int(hello["process"])
                problem = _misfit(index, hello, hellos)
            except (OSError, ValueError, LookupError, TypeError, AttributeError):
                connection.close()  # something else knocks at this port
                continue
            if problem:
                _send_away([connection, *connections.values()], problem)
                raise UsageError(problem)
            connections[index], hellos[index] = connection, hello
    return connections, [hellos[i] for i in range(place.count)]


def _send_away(connections: Iterable[_Connection], problem: str) -> None:
    for connection in connections:
        connection.send(failed=problem)
        connection.close()


def _misfit(index: int, hello: dict, hellos: dict[int, dict]) -> str | None:
    """Why a process cannot be one of those that are there; `None` if it can."""
    own = hellos[0]
    if hello["processes"] != own["processes"]:
        return (
            f"process {index} has --num_processes {hello['processes']}, process 0 has "
            f"{own['processes']}; give the same to all"
        )
    if index in hellos or not 0 < index < own["processes"]:
        return f"--process_id {index}: two processes have it; number them 0, 1, 2, …"
    facts = hello["facts"]
    for name in sorted(own["facts"].keys() | facts.keys()):
        if facts.get(name) != own["facts"].get(name):
            return (
                f"process {index} has {name} {facts.get(name)}, process 0 has "
                f"{own['facts'].get(name)}; give all the same, or --num_processes 1 to processes "
                "that do not belong together"
            )
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
    except (OSError, ValueError):
        return False


def _listen(place: Place) -> socket.socket:
    host, port = place.address
    try:
        if _is_loopback(host):
            return socket.create_server((host, port), backlog=place.count)
        # The host's name may lead to it only from outside, as in Kubernetes.
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=place.count
            )
        return socket.create_server(("", port), backlog=place.count)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UserError(
            f"--coordinator {place.coordinator}: cannot listen there ({reason}); "
            "give a free port of the machine that process 0 runs on"
        ) from None


def _free_port(host: str) -> int:
    with socket.create_server(("127.0.0.1" if _is_loopback(host) else "", 0)) as server:
        return server.getsockname()[1]


def _reach(place: Place) -> _Connection:
    """The other processes' side: a connection to process 0 as soon as it listens."""
    deadline = time.monotonic() + MEETING_SECONDS
    while True:
        left = deadline - time.monotonic()
        try:
            connection = _Connection(socket.create_connection(place.address, max(1.0, left)))
            # Process 0 waits as long for the last one.
            connection.socket.settimeout(MEETING_SECONDS + _LEAVING_SECONDS)
            return connection
        except OSError as error:
            if left <= 0:
                raise UserError(
                    f"--coordinator {place.coordinator}: no process 0 there within "
                    f"{MEETING_SECONDS:.0f} s ({error.strerror or error}); is it started, with "
                    "this address, and can it be reached from here?"
                ) from None
        time.sleep(0.2)


class Group:
    """The processes of a training, as one of them sees them.

    Threads listen to the connections: a process that waits in a computation for one that is gone
    waits for ever, and can only be ended from beside it.

    Args:
        place: This process.
        connections: By process: from process 0 to all others, from those to process 0.
        welcome: What process 0 told: the `port` for JAX, and each process's machine.
    """

    def __init__(self, place: Place, connections: dict[int, _Connection], welcome: dict[str, Any]):
        self.place = place
        self.status = 0
        self._connections = connections
        self._port = welcome["port"]
        self._machines = welcome["machines"]
        self._service: subprocess.Popen | None = None
        self._lock = threading.Lock()
        self._ending = False
        self._told = threading.Event()  # process 0 knows that this process failed
        self._done: set[int] = set()
        self._all_done = threading.Event()
        self._received: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # Held while the processes agree on where to stop, so that none goes on meanwhile.
        self._boundary = threading.Lock()
        self._passed = 0
        self._asked = self._agreeing = False
        self._passed_by: dict[int, int] = {}
        self._stop: tuple[int, signal.Signals] | None = None

    @property
    def index(self) -> int:
        return self.place.index

    @property
    def count(self) -> int:
        return self.place.count

    @property
    def agreed(self) -> bool:
        """Whether a signal has ended the training, at a place that all know."""
        return self._stop is not None and self._passed >= self._stop[0]

    def broadcast(self, data: bytes | None) -> bytes | None:
        """Process 0's bytes, or its `None`, in all processes.

        Args:
            data: What process 0 has; of the others it is not read.
        """
        if self.index:
            return self._received.get()
        for connection in self._connections.values():
            if data is None:
                connection.send(nothing=True)
            else:
                connection.send_bytes(data)
        return data

    def watch(self) -> None:
        """From here on the end of another process ends this one."""
        for peer, connection in self._connections.items():
            threading.Thread(target=self._listen, args=(peer, connection), daemon=True).start()
        threading.Thread(target=self._show_life, daemon=True).start()

    def start_jax(self, local_devices: Sequence[int] | None = None) -> None:
        """Makes the devices of all processes known to JAX; before anything is computed.

        Args:
            local_devices: Which GPUs of the machine this process has; all of them if `None`.
        """
        import jax

        # Its handler of SIGTERM would take the place of ours.
        jax.config.update("jax_enable_preemption_service", False)
        host = self.place.coordinator.rpartition(":")[0]
        bind = "127.0.0.1" if _is_loopback(self.place.address[0]) else "[::]"
        options = {}
        if self.index == 0:
            self._start_service(f"{bind}:{self._port}")
            # JAX insists on a service in process 0, which nobody uses.
            options["coordinator_bind_address"] = "127.0.0.1:0"
        jax.distributed.initialize(
            f"{host}:{self._port}",
            self.count,
            self.index,
            local_devices,
            cluster_detection_method="deactivate",
            initialization_timeout=_JAX_SECONDS,
            **options,
        )
        # Again, to run before what JAX does at the end: it waits for processes that may be gone,
        # and is an abort where process 0 went first.
        atexit.register(self.leave)

    def _start_service(self, address: str) -> None:
        """Starts what JAX's processes find each other by, in a process of its own.

        Where it is gone, jaxlib ends every process at once, with a trace of C++: it has to outlive
        process 0, so that the others can say what happened.
        """
        command = [sys.executable, "-c", _SERVICE, address, str(self.count), str(_LEAVING_SECONDS)]
        pipe = subprocess.PIPE
        self._service = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, start_new_session=True
        )
        if not self._service.stdout.readline():
            raise UserError(f"JAX's coordination service cannot listen at {address}")

    def on_this_machine(self) -> tuple[int, int]:
        """This process's number among those that see the same devices, and how many these are."""
        own = self._machines[self.index]
        same = [i for i, machine in enumerate(self._machines) if machine == own]
        return same.index(self.index), len(same)

    # ------------------------------------------------------------------ stopping together

    def stop_here(self, requested: signal.Signals | None) -> signal.Signals | None:
        """The signal that ends the training here, in all processes at the same call.

        Each process has to call it at the same places, as between two steps. The processes may be
        at different ones when a signal comes: the end is at the first that none has passed.

        Args:
            requested: The signal that this process has received, if any.
        """
        if requested and not self._asked:
            self._asked = True
            if self.index == 0:
                self._agree(requested)
            else:
                self._connections[0].send(stop=int(requested))
        with self._boundary:
            self._passed += 1
            return self._stop[1] if self.agreed else None

    def _agree(self, requested: int) -> None:
        """Process 0: asks all how far they are; they wait for the answer at the next place."""
        with self._lock:
            if self._agreeing:
                return
            self._agreeing = True
        self._boundary.acquire()
        self._signal = signal.Signals(requested)
        for connection in self._connections.values():
            connection.send(wait=True)
        self._note_passed(0, self._passed)

    def _note_passed(self, peer: int, passed: int) -> None:
        with self._lock:
            self._passed_by[peer] = passed
            if len(self._passed_by) < self.count:
                return
        self._stop = max(self._passed_by.values()) + 1, self._signal
        for connection in self._connections.values():
            connection.send(stop_at=self._stop[0], signal=int(self._signal))
        self._boundary.release()

    # ------------------------------------------------------------------ listening

    def _show_life(self) -> None:
        while True:
            time.sleep(ALIVE_SECONDS)
            for connection in self._connections.values():
                connection.send(alive=True)

    def _listen(self, peer: int, connection: _Connection) -> None:
        while True:
            try:
                self._handle(peer, connection, connection.receive())
            except TimeoutError:
                reason = f"process {peer} has not been heard from for {SILENCE_SECONDS:.0f} s"
                break
            except (OSError, ValueError):
                reason = f"process {peer} is gone: it was killed, or its machine is down"
                break
        connection.closed.set()
        if not self._all_done.is_set():
            self._end_by(reason, 1)

    def _handle(self, peer: int, connection: _Connection, message: dict[str, Any]) -> None:
        if "failed" in message:
            if self.index == 0:
                connection.send(told=True)
            self._end_by(message["failed"], message["status"])
        elif "told" in message:
            self._told.set()
        elif "stop" in message:
            self._agree(message["stop"])
        elif "wait" in message:
            self._boundary.acquire()
            connection.send(passed=self._passed)
        elif "passed" in message:
            self._note_passed(peer, message["passed"])
        elif "stop_at" in message:
            self._stop = message["stop_at"], signal.Signals(message["signal"])
            self._boundary.release()
        elif "nothing" in message:
            self._received.put(None)
        elif "size" in message:
            self._received.put(connection.receive_bytes(message["size"]))
        elif "done" in message:
            self._note_done(peer)
        elif "all_done" in message:
            self._all_done.set()

    # ------------------------------------------------------------------ ending

    def _begin_ending(self) -> bool:
        """Whether nothing else has ended this process yet; it is then for the caller to do it."""
        with self._lock:
            first, self._ending = not self._ending, True
            return first

    def _end_by(self, reason: str, status: int) -> None:
        """Ends this process because of another one."""
        if self._begin_ending():
            self.status = status
            threading.Thread(target=self._end, args=(reason,)).start()

    def _end(self, reason: str) -> None:
        if self.index == 0:
            for connection in self._connections.values():
                connection.send(failed=reason, status=self.status)
        print(f"{Path(sys.argv[0]).name}: error: {reason}", file=sys.stderr, flush=True)
        self.leave()

    def fail(self, error: BaseException) -> None:
        """Tells the others why this process ends. Does not return if one of them was first."""
        if not isinstance(error, UserError):
            # A computation may fail only because another process is gone.
            time.sleep(1)
        if not self._begin_ending():
            threading.Event().wait()  # `_end` is at work
        self.status = _exit_status(error)
        lines = str(error).splitlines() or [""]
        what = " ".join(str(error).split())
        if not isinstance(error, UserError):
            what = f"{type(error).__name__}: {lines[0]}".rstrip(": ")
        message = {"failed": f"process {self.index} failed: {what}", "status": self.status}
        for connection in self._connections.values():
            connection.send(**message)
        if self.index:
            self._told.wait(_LEAVING_SECONDS)

    def finish(self) -> None:
        """Waits until all processes have come to their end."""
        if self.index == 0:
            self._note_done(0)
        else:
            self._connections[0].send(done=True)
        self._all_done.wait()

    def _note_done(self, peer: int) -> None:
        with self._lock:
            self._done.add(peer)
            if len(self._done) < self.count:
                return
        self._all_done.set()
        for connection in self._connections.values():
            connection.send(all_done=True)

    def close(self) -> None:
        """Closes the connections; only for a group that was not watched."""
        for connection in self._connections.values():
            connection.close()

    def leave(self) -> None:
        """The end of this process; that of process 0 after the others'."""
        if self.index == 0:
            deadline = time.monotonic() + _LEAVING_SECONDS
            for connection in self._connections.values():
                connection.closed.wait(max(0.0, deadline - time.monotonic()))
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        if self._service:
            with contextlib.suppress(OSError):
                self._service.stdin.write(b"all others have left")
                self._service.stdin.close()
        os._exit(self.status)


def _exit_status(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 130 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_status", 1)


def share_snapshot(group: Group, loaded: snapshots.Loaded | None) -> snapshots.Loaded | None:
    """Process 0's snapshot in all processes, which need not see its file.

    Args:
        group: The processes.
        loaded: The snapshot, in process 0; of the others it is not read.
    """
    data = None
    if loaded:
        buffer = io.BytesIO()
        snapshots.dump(buffer, loaded.snapshot)
        data = buffer.getbuffer()
    data = group.broadcast(data)
    if data is None or group.index == 0:
        return loaded
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        file.write(data)
        file.flush()
        return snapshots.Loaded(snapshots.read(file.name), newest_is_good=True)


def as_first(group: Group | None, value: Any) -> Any:
    """Process 0's value in all processes.

    Args:
        group: The processes; `None` for one alone, whose value it is.
        value: A JSON value.
    """
    return json.loads(group.broadcast(json.dumps(value).encode())) if group else value


def check_same_data(group: Group, facts: dict[str, Any]) -> None:
    """Refuses processes that found other images, classes or embeddings than process 0.

    Args:
        group: The processes.
        facts: What has to be the same, by what to call it; JSON values.

    Raises:
        UserError: They differ.
    """
    expected = as_first(group, facts)
    differing = [name for name in facts if facts[name] != expected.get(name)]
    if differing:
        raise UserError(
            f"on this machine ({platform.node()}) another data set is found than process 0 has: "
            f"its {', '.join(differing)} differ"
        )


@contextlib.contextmanager
def together(place: Place | None, facts: dict[str, Any]) -> Iterator[Group | None]:
    """Within it this process is one of a group, which ends as one; `None` for a process alone.

    Only process 0 prints and warns. An error that leaves it ends all processes, with the reason.

    Args:
        place: As found by `find_place`.
        facts: As for `meet`.

    Raises:
        UserError: The processes do not meet.
    """
    if place is None:
        yield None
        return
    group = meet(place, facts)
    _quieten(first=place.index == 0)
    atexit.register(group.leave)
    group.watch()
    try:
        yield group
    except Interrupted as error:
        if not group.agreed:
            group.fail(error)
            raise
        group.status = error.exit_status
        group.finish()
        if place.index:
            group.leave()  # process 0 says it for all
        raise
    except BaseException as error:
        group.fail(error)
        raise
    group.finish()


def _quieten(first: bool) -> None:
    """Leaves standard output to process 0's Python: Gloo, too, writes there."""
    output = os.dup(1) if first else os.open(os.devnull, os.O_WRONLY)
    sys.stdout.flush()
    sys.stdout = open(output, "w", buffering=1, encoding=sys.stdout.encoding)  # noqa: SIM115
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)
    if not first:
        logging.disable(logging.WARNING)
