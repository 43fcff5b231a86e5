"""SIGTERM and SIGINT: a training finishes its step and saves before it ends."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator

from utils import UserError

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Seconds within which further signals do not count.
_SAME_WISH = 3.0


class Interrupted(UserError):
    """The run ends because a signal asked for it; its status is 128 + the signal's number."""

    prefix = ""

    def __init__(self, received: signal.Signals, details: str):
        super().__init__(f"interrupted by {received.name}{details}")
        self.exit_status = 128 + received


class StopSignals:
    """Handles SIGTERM and SIGINT once installed; another one seconds later ends at once.

    Those that come right after the first are the same wish: schedulers signal a group of
    processes, and then its children.

    Attributes:
        requested: The signal that asked for the end, if one did.
        advice: How to go on from the last snapshot, for the message.

    Args:
        group: The processes that have to end at the same place (`devices.processes.Group`); SIGTERM
            is JAX's from their meeting to the end of `deferred`, and handled by `is_due`.
    """

    def __init__(self, group=None):
        self._group = group
        self.requested: signal.Signals | None = None
        self.advice = ""
        self._deferred = False
        self._first_at = 0.0

    def install(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, self._handle)

    def is_due(self) -> bool:
        """Whether to end here; asked at the same places, in the same order, by all processes."""
        if self._group:
            agreed = self._group.stop_here(self.requested)
            self.requested = agreed or self.requested
            return agreed is not None
        return self.requested is not None

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within it a signal only sets `requested`; whoever works there calls `stop`."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self._group:
            self.is_due()
            self.install()
        if self.requested:
            self.stop()

    def stop(self, place: str = "") -> None:
        """Ends the run that a signal asked to end.

        Raises:
            Interrupted: Always.
        """
        raise Interrupted(self.requested, f"{place}{self.advice}")

    def _handle(self, number, frame):
        if self.requested:
            if time.monotonic() > self._first_at + _SAME_WISH:
                os._exit(128 + number)
            return
        self.requested, self._first_at = signal.Signals(number), time.monotonic()
        if not self._deferred:
            self.stop()
        if self._group:
            os.kill(os.getpid(), signal.SIGTERM)  # by which JAX tells all
        print(
            f"{self.requested.name}: ending after this step; another signal after "
            f"{_SAME_WISH:.0f} s ends at once",
            file=sys.stderr,
            flush=True,
        )
