"""Runs as processes: where they run, how they end, and how they survive whoever started them.

A process holds a lock on a file in its run's directory. Whoever finds it held knows that the run
is still under way, though its driver was killed, and waits for it instead of starting it again.
"""

import contextlib
import fcntl
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.slots import Slot, on_cores
from utils import UserError, printable

FINISHED, FAILED, STOPPED = "finished", "failed", "stopped"
# Exit statuses of a run that was asked to end and wrote its snapshot, or had no time to.
_ASKED = {128 + signal.SIGTERM, 128 + signal.SIGINT, -signal.SIGTERM, -signal.SIGINT}
_PAUSE = 0.1


@contextlib.contextmanager
def exclusive(path: Path, message: str) -> Iterator[None]:
    """Holds a lock file, so that a second program does not do the same at the same time.

    Raises:
        UserError: Another process holds it.
    """
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(message) from None
        yield


class Process:
    """A run under way in its directory, started here or by a driver that was killed since.

    Attributes:
        directory: Of the run; the program's output goes to its `log.txt`.
        slot: Number of the slot that it takes.
    """

    def __init__(self, directory: Path, slot: int, pid: int | None, child: subprocess.Popen | None):
        self.directory = directory
        self.slot = slot
        self._pid = pid
        self._child = child

    @classmethod
    def start(cls, directory: Path, command: Sequence[str], slot: Slot) -> "Process":
        """Starts a command in a slot; it goes on when this program is killed."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "command.txt").write_text(shlex.join(command) + "\n")
        with open(directory / "lock", "w") as lock, open(directory / "log.txt", "ab") as log:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with on_cores(slot.cores):
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **slot.environment},
                    start_new_session=True,  # Ctrl-C reaches the driver alone, which passes it on
                    pass_fds=[lock.fileno()],  # the lock is held until the last holder ends
                )
            json.dump({"pid": child.pid, "slot": slot.number}, lock)
        return cls(directory, slot.number, child.pid, child)

    @classmethod
    def find(cls, directory: Path) -> "Process | None":
        """The process that still runs in a directory, if one does."""
        if not _is_locked(directory):
            return None
        try:
            known = json.loads((directory / "lock").read_text())
        except ValueError:
            known = {}  # killed before it was written
        return cls(directory, known.get("slot", 0), known.get("pid"), None)

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return _is_locked(self.directory) if self._child is None else self._child.poll() is None

    def stop(self) -> None:
        """Asks it to write its snapshot and to end."""
        if self.running and self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGTERM)

    def outcome(self) -> tuple[str, str]:
        """How an ended run ended (`FINISHED`, `FAILED` or `STOPPED`), and why it failed."""
        status = self._child.returncode if self._child else None
        if (self.directory / "result.json").exists():
            return FINISHED, ""
        if status is None or status in _ASKED:
            return STOPPED, ""
        return FAILED, failure(self.directory, status)


def failure(directory: Path, status: int) -> str:
    """Why a run failed, in a line: its error message, or its last words."""
    if status < 0:
        name = signal.Signals(-status).name
        hint = " (out of memory?)" if status == -signal.SIGKILL else ""
        return f"killed by {name}{hint}"
    with open(directory / "log.txt", "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 2**16))
        lines = file.read().decode(errors="replace").split("\n")
    lines = [printable(line).strip() for line in lines if line.strip()]
    errors = [line for line in lines if ".py: " in line.split(" ", 1)[0] + " "]
    last = (errors or lines or [f"status {status}"])[-1]
    return last if len(last) <= 300 else f"{last[:300]} …"


def _is_locked(directory: Path) -> bool:
    try:
        with open(directory / "lock") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


class Interrupted(UserError):
    """The driver was asked to end; its runs wrote their snapshots."""

    prefix = ""

    def __init__(self, received: int):
        super().__init__(
            f"interrupted by {signal.Signals(received).name}; the same command goes on from here"
        )
        self.exit_status = 128 + received


class Pool:
    """Slots of the machine and the runs in them.

    Args:
        slots: The slots.
        program: The command that trains, before a run's own arguments.
    """

    def __init__(self, slots: Sequence[Slot], program: Sequence[str]):
        self.slots = list(slots)
        self.program = list(program)
        self.processes: list[Process] = []
        self._received: int | None = None

    @property
    def free(self) -> list[Slot]:
        """The slots in which nothing runs; none beyond the number of runs at a time."""
        taken = {process.slot for process in self.processes}
        free = [slot for slot in self.slots if slot.number not in taken]
        return free[: max(0, len(self.slots) - len(self.processes))]

    def start(self, directory: Path, argv: Sequence[str]) -> Process:
        """Starts a run in the first free slot; the run itself continues from its snapshot."""
        discard_beginning(directory)
        argv = [*argv, *own_files(directory)]
        process = Process.start(directory, [*self.program, *argv], self.free[0])
        self.processes.append(process)
        return process

    def find(self, directory: Path) -> Process | None:
        """Takes in a run that a killed driver left running, if it is."""
        process = Process.find(directory)
        if process:
            self.processes.append(process)
        return process

    def ended(self) -> list[Process]:
        """The runs that have ended since this was asked last."""
        ended = [process for process in self.processes if not process.running]
        self.processes = [process for process in self.processes if process not in ended]
        return ended

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Within it SIGTERM and SIGINT make `pause` stop all runs; a second one ends at once.

        Whatever else ends it early stops the runs too.
        """

        def handle(number, frame):
            if self._received:
                os._exit(128 + number)
            self._received = number

        before = {n: signal.signal(n, handle) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        except BaseException:
            self.stop()
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def pause(self) -> None:
        """Waits a little.

        Raises:
            Interrupted: A signal came; all runs have ended.
        """
        if self._received:
            raise Interrupted(self._received)
        time.sleep(_PAUSE)

    def stop(self) -> None:
        """Asks all runs to end, and waits for it."""
        for process in self.processes:
            process.stop()
        while any(process.running for process in self.processes):
            time.sleep(_PAUSE)


@dataclass(frozen=True)
class Planned:
    """A run that is to be there in the end: its directory, and its arguments without that."""

    directory: Path
    argv: tuple[str, ...]


def own_files(directory: Path) -> list[str]:
    """The flags that have a run write into its directory, and continue from its snapshot."""
    return ["--log_dir", str(directory), "--snapshot", str(directory / "run.snapshot")]


def discard_beginning(directory: Path) -> None:
    """Removes what a run wrote that was killed before its first snapshot: it begins anew."""
    if not any((directory / f"run.snapshot{end}").exists() for end in ("", ".previous")):
        for path in [directory / "history.csv", *directory.glob("events.out.tfevents.*")]:
            path.unlink(missing_ok=True)


def remove_snapshots(directory: Path) -> None:
    """Removes the snapshots of a run that has ended for good."""
    for name in ("run.snapshot", "run.snapshot.previous"):
        (directory / name).unlink(missing_ok=True)


def run_all(pool: Pool, runs: Sequence[Planned], say=print) -> dict[Path, str]:
    """Brings runs to their end: those that are finished stay, those begun go on.

    Args:
        pool: Where they run.
        runs: What is to be there.
        say: Told what happens, line by line.

    Returns:
        The reason of each that failed, by its directory.
    """
    waiting = [run for run in runs if not (run.directory / "result.json").exists()]
    by_directory = {run.directory: run for run in waiting}
    total, failures = len(runs), {}
    if len(waiting) < total:
        say(f"{total - len(waiting)} of {total} runs are finished already")
    waiting = [run for run in waiting if not pool.find(run.directory)]
    with pool.signals():
        while waiting or pool.processes:
            while waiting and pool.free:
                run = waiting.pop(0)
                pool.start(run.directory, run.argv)
            pool.pause()
            for process in pool.ended():
                state, reason = process.outcome()
                if state == STOPPED:
                    waiting.insert(0, by_directory[process.directory])
                    continue
                if state == FAILED:
                    failures[process.directory] = reason
                else:
                    remove_snapshots(process.directory)
                left = len(waiting) + len(pool.processes)
                say(f"{process.directory}: {state}{': ' * bool(reason)}{reason}; {left} left")
    return failures
