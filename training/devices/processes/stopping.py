"""The step at which a signal to one process ends the training of all."""

import signal
import threading
from typing import Any

from training.devices.processes.connection import Connection


class StopAgreement:
    """Lets all processes end at the same step, the first that none has passed.

    Args:
        index: Which process this is; process 0 asks the others.
        connections: By process: from process 0 to all others, from those to process 0.
    """

    def __init__(self, index: int, connections: dict[int, Connection]):
        self._index = index
        self._connections = connections
        self._lock = threading.Lock()
        self._asked = False
        # Held from the answer how far this process is until all are heard: none goes on meanwhile.
        self._boundary = threading.Lock()
        self._passed = 0
        self._passed_by: dict[int, int] = {}  # process 0 only
        self._signal: signal.Signals | None = None
        self._stop_at: int | None = None

    @property
    def reached(self) -> bool:
        """Whether this process is where all have agreed to end."""
        return self._stop_at is not None and self._passed >= self._stop_at

    def pass_step(self, requested: signal.Signals | None) -> signal.Signals | None:
        """Counts a step; the signal that ends the training before it, if one does.

        Args:
            requested: The signal that this process has received, if any.
        """
        if requested:
            self._ask(requested)
        with self._boundary:
            self._passed += 1
            return self._signal if self.reached else None

    def handle(self, peer: int, message: dict[str, Any]) -> None:
        """Follows another process's message, if it is about stopping."""
        if "stop" in message:
            self._ask(message["stop"])
        elif "wait" in message:
            self._boundary.acquire()
            self._connections[0].send(passed=self._passed)
        elif "passed" in message:
            self._note_passed(peer, message["passed"])
        elif "stop_at" in message:
            self._end_at(message["stop_at"], message["signal"])

    def _ask(self, requested: int) -> None:
        with self._lock:
            if self._asked:
                return
            self._asked = True
        if self._index:
            self._connections[0].send(stop=int(requested))
            return
        self._boundary.acquire()
        self._signal = signal.Signals(requested)
        for connection in self._connections.values():
            connection.send(wait=True)
        self._note_passed(0, self._passed)

    def _note_passed(self, peer: int, passed: int) -> None:
        with self._lock:
            self._passed_by[peer] = passed
            if len(self._passed_by) <= len(self._connections):
                return
        stop_at = max(self._passed_by.values()) + 1
        for connection in self._connections.values():
            connection.send(stop_at=stop_at, signal=int(self._signal))
        self._end_at(stop_at, self._signal)

    def _end_at(self, step: int, number: int) -> None:
        self._stop_at, self._signal = step, signal.Signals(number)
        self._boundary.release()
