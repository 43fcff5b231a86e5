"""The project's scripts as processes of their own, forked where Python and Keras are loaded."""

import atexit
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]

# All of learn_classifier.py, with few channels in `fast-cnn`.
THIN = """
import runpy, sys
import models.fast_cnn
models.fast_cnn._STAGES = (8, 8, 16)
sys.argv[0] = "learn_classifier.py"
runpy.run_path("learn_classifier.py", run_name="__main__")
"""


# Compiling is most of JAX's work: it is done quickly, and of the same program once. How devices
# share the work is decided before.
_QUICK = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


class Program:
    """A running program, as `subprocess.Popen` describes one.

    Args:
        command: A script, a module, or `-c` and a program's text; and its arguments.
        backend: Of Keras.
        directory: Where it runs, from which the script's path may be relative.
        environment: Changes to those variables that Keras and its backend do not read on import.
    """

    def __init__(self, *command, backend="tensorflow", directory=ROOT, environment=None):
        self.returncode = self._written = None
        self._output, self._errors = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115
        end, theirs = os.pipe()
        self._end = open(end)  # noqa: SIM115
        job = {
            "command": [str(part) for part in command],
            "directory": str(directory),
            "environment": environment or {},
        }
        files = [self._output.fileno(), self._errors.fileno(), theirs]
        socket.send_fds(_server(backend), [json.dumps(job).encode()], files)
        os.close(theirs)
        self.pid = int(self._end.readline())

    def poll(self, timeout: float | None = 0) -> int | None:
        """The status, or `None` of a program that goes on for longer than `timeout` seconds."""
        if self.returncode is None and select.select([self._end], [], [], timeout)[0]:
            self.returncode = int(self._end.readline())
            self._written = self.stdout, self.stderr
            for file in self._output, self._errors, self._end:
                file.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._written[0] if self._written else _content(self._output)

    @property
    def stderr(self) -> str:
        return self._written[1] if self._written else _content(self._errors)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Output and errors of a program that has come to its end."""
        if self.poll(timeout) is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return self._written

    def wait_for(self, text: str) -> None:
        """Waits until it has printed a text."""
        while text not in self.stdout:
            if self.poll() is not None and text not in self.stdout:
                raise AssertionError(f"ended without {text!r}: {self.stderr}")
            time.sleep(0.01)


def run(*command, status=0, **options) -> Program:
    """A program that has ended with a status; its standard error is part of a failure."""
    program = Program(*command, **options)
    program.communicate()
    assert program.returncode == status, program.stdout + program.stderr
    return program


def _content(file) -> str:
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")


@functools.cache
def _server(backend: str) -> socket.socket:
    """The socket of the server with that backend, which ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # The order of sets is another one than here.
    own = {"KERAS_BACKEND": backend, "PYTHONHASHSEED": "5"}
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.fork_server"],
        cwd=ROOT,
        env={**os.environ, **_QUICK, **own},
        stdin=theirs,
        start_new_session=True,
    )
    theirs.close()

    def end():
        ours.close()
        server.wait()

    atexit.register(end)
    return ours
