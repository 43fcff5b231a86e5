import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

import training  # noqa: F401  JAX would set the level of TensorFlow's messages for all children

# The user's programs stay as they are, and the tests depend on none of them.
os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="tests-jax-")
atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

# Seconds of CPU; libraries hang on some damaged files, and read the others in milliseconds.
_TIMEOUT = 0.5
_FORK_SERVER = f"""
import json, os, runpy, signal, sys
import h5py, scipy.io
main = None
for line in sys.stdin:
    program, *arguments = json.loads(line)
    if main is None:
        main = runpy.run_path(program)["main"]
        sys.path.insert(0, os.path.dirname(program))
        import hdf5, mat, npz, pickles
    child = os.fork()
    if not child:
        signal.setitimer(signal.ITIMER_PROF, {_TIMEOUT})
        main(*arguments)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="session")
def fork_server():
    with subprocess.Popen(
        [sys.executable, "-I", "-c", _FORK_SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        yield server
        server.stdin.close()


@pytest.fixture
def forked_reading(fork_server, monkeypatch):
    """Files are read in forks of one process: starting Python takes far longer."""

    start = subprocess.run

    def run(command, *, timeout=None, **options):
        if "-I" not in command:
            return start(command, timeout=timeout, **options)
        arguments = [str(part) for part in command[1:] if not str(part).startswith("-")]
        print(json.dumps(arguments), file=fork_server.stdin, flush=True)
        status = int(fork_server.stdout.readline())
        if status == -signal.SIGPROF:
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, status)

    monkeypatch.setattr(subprocess, "run", run)
