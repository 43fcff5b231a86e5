"""What JAX's processes find each other by, in a process of its own.

Where it is gone, jaxlib ends every process at once, with a trace of C++: it has to outlive process
0, so that the others can say what happened.
"""

import contextlib
import subprocess
import sys

from utils import UserError

# It stays for a moment, or where process 0 was killed, until the others have noticed. Signals are
# for those that train.
_PROGRAM = """
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


class JaxService:
    """JAX's coordination service, running.

    Args:
        address: Where it listens, `HOST:PORT`.
        count: How many processes join.
        leaving_seconds: What these get to end themselves where process 0 was killed.

    Raises:
        UserError: It cannot listen there.
    """

    def __init__(self, address: str, count: int, leaving_seconds: float):
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, address, str(count), str(leaving_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if not self._process.stdout.readline():
            raise UserError(f"JAX's coordination service cannot listen at {address}")

    def end(self) -> None:
        """Ends it when all other processes have left."""
        with contextlib.suppress(OSError):
            self._process.stdin.write(b"all others have left")
            self._process.stdin.close()
