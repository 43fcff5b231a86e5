"""The processes of a training as one of them sees them: they end, fail and stop as one."""

import atexit
import contextlib
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from training.devices.processes.connection import Connection
from training.devices.processes.jax_service import JaxService
from training.devices.processes.meeting import meet
from training.devices.processes.place import Place
from training.devices.processes.stopping import StopAgreement
from training.resuming.signals import Interrupted
from utils import UserError, one_line

ALIVE_SECONDS = 5.0
SILENCE_SECONDS = 30.0
# All are known to be there; one that comes later is still importing from a slow disk.
_JAX_SECONDS = 600
# What the others get to end themselves, and process 0 to hear of it.
_LEAVING_SECONDS = 5.0


@contextlib.contextmanager
def together(place: Place | None, facts: dict[str, Any]) -> Iterator["Group | None"]:
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
    group = Group(place, *meet(place, facts))
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


class Group:
    """The processes of a training, as one of them sees them.

    Attributes:
        place: This process.
        status: What it will end with.

    Args:
        place: This process.
        connections: From process 0 to all others, from those to process 0; by process.
        welcome: What process 0 told: the `port` for JAX, and each process's machine.
    """

    def __init__(self, place: Place, connections: dict[int, Connection], welcome: dict[str, Any]):
        self.place = place
        self.status = 0
        self._connections = connections
        self._port = welcome["port"]
        self._machines = welcome["machines"]
        self._service: JaxService | None = None
        self._stopping = StopAgreement(place.index, connections)
        self._received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._ending = False
        self._told = threading.Event()  # process 0 knows that this process failed
        self._done: set[int] = set()
        self._all_done = threading.Event()

    @property
    def index(self) -> int:
        return self.place.index

    @property
    def count(self) -> int:
        return self.place.count

    @property
    def agreed(self) -> bool:
        """Whether a signal has ended the training, at a step that all know."""
        return self._stopping.reached

    def stop_here(self, requested: signal.Signals | None) -> signal.Signals | None:
        """The signal that ends the training here, in all processes at the same call.

        Each process has to call it at the same places, as between two steps.

        Args:
            requested: The signal that this process has received, if any.
        """
        return self._stopping.pass_step(requested)

    def broadcast(self, data: bytes) -> bytes:
        """Process 0's bytes in all processes.

        Args:
            data: What process 0 has; of the others it is not read.
        """
        if self.index:
            return self._received.get()
        for connection in self._connections.values():
            connection.send(data, size=len(data))
        return data

    def on_this_machine(self) -> tuple[int, int]:
        """This process's number among those that see the same devices, and how many these are."""
        own = self._machines[self.index]
        same = [i for i, machine in enumerate(self._machines) if machine == own]
        return same.index(self.index), len(same)

    def start_jax(self, local_devices: Sequence[int] | None = None) -> None:
        """Makes the devices of all processes known to JAX; before anything is computed.

        Args:
            local_devices: Which GPUs of the machine this process has; all of them if `None`.
        """
        import jax

        # Its handler of SIGTERM would take the place of ours.
        jax.config.update("jax_enable_preemption_service", False)
        options = {}
        if self.index == 0:
            bind = "127.0.0.1" if self.place.on_loopback else "[::]"
            self._service = JaxService(f"{bind}:{self._port}", self.count, _LEAVING_SECONDS)
            # JAX insists on a service in process 0, which nobody uses.
            options["coordinator_bind_address"] = "127.0.0.1:0"
        jax.distributed.initialize(
            f"{self.place.host}:{self._port}",
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

    # ------------------------------------------------------------------ listening

    def watch(self) -> None:
        """From here on the end of another process ends this one."""
        for peer, connection in self._connections.items():
            connection.socket.settimeout(SILENCE_SECONDS)
            threading.Thread(target=self._listen, args=(peer, connection), daemon=True).start()
        threading.Thread(target=self._show_life, daemon=True).start()

    def _tell_all(self, **message: Any) -> None:
        for connection in self._connections.values():
            connection.send(**message)

    def _show_life(self) -> None:
        while True:
            time.sleep(ALIVE_SECONDS)
            self._tell_all(alive=True)

    def _listen(self, peer: int, connection: Connection) -> None:
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

    def _handle(self, peer: int, connection: Connection, message: dict[str, Any]) -> None:
        if "size" in message:
            self._received.put(connection.receive_bytes(message["size"]))
        elif "failed" in message:
            if self.index == 0:
                connection.send(told=True)
            self._end_by(message["failed"], message["status"])
        elif "told" in message:
            self._told.set()
        elif "done" in message:
            self._note_done(peer)
        elif "all_done" in message:
            self._all_done.set()
        else:
            self._stopping.handle(peer, message)

    # ------------------------------------------------------------------ ending

    def finish(self) -> None:
        """Waits until all processes have come to their end."""
        if self.index == 0:
            self._note_done(0)
        else:
            self._tell_all(done=True)
        self._all_done.wait()

    def _note_done(self, peer: int) -> None:
        with self._lock:
            self._done.add(peer)
            if len(self._done) < self.count:
                return
        self._all_done.set()
        self._tell_all(all_done=True)

    def fail(self, error: BaseException) -> None:
        """Tells the others why this process ends. Does not return if one of them was first."""
        if self.index or not isinstance(error, UserError):
            # Most mistakes are found by all at once, and process 0 knows the files; a computation
            # may fail only because another process is gone.
            time.sleep(1)
        if not self._begin_ending():
            threading.Event().wait()  # `_end` is at work
        interrupted = isinstance(error, KeyboardInterrupt)
        self.status = 130 if interrupted else getattr(error, "exit_status", 1)
        what = one_line(error)
        if not isinstance(error, UserError):
            first_line = str(error).partition("\n")[0]
            what = f"{type(error).__name__}: {first_line}".rstrip(": ")
        self._tell_all(failed=f"process {self.index} failed: {what}", status=self.status)
        if self.index:
            self._told.wait(_LEAVING_SECONDS)

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
            self._tell_all(failed=reason, status=self.status)
        print(f"{Path(sys.argv[0]).name}: error: {reason}", file=sys.stderr, flush=True)
        self.leave()

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
            self._service.end()
        os._exit(self.status)
