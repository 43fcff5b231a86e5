import contextlib
import functools
import hashlib
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

import training  # noqa: F401  JAX would set the level of TensorFlow's messages for all children
from foreign_files.child import program


def pytest_configure(config):
    # What JAX compiles is kept from one run of the tests to the next, apart from the user's.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(config.rootpath / ".pytest_cache/d/jax")


# Seconds of CPU; libraries hang on some damaged files, and read the others in milliseconds.
_TIMEOUT = 0.5
_FORK_SERVER = f"""
import gc, importlib, json, os, runpy, signal, sys
program, reader = sys.argv[1:]
main = runpy.run_path(program)["main"]
sys.path.insert(0, os.path.dirname(program))
importlib.import_module(reader)
gc.collect()
gc.freeze()
for line in sys.stdin:
    child = os.fork()
    if not child:
        signal.setitimer(signal.ITIMER_PROF, {_TIMEOUT})
        main(*json.loads(line))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="session")
def fork_server():
    """Gives by its command the process that forks readers of one kind, as small as can be."""
    with contextlib.ExitStack() as running:

        @functools.cache
        def server(*command):
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            return running.enter_context(process)

        yield server


@pytest.fixture
def forked_reading(fork_server, monkeypatch):
    """Files are read in forks of a process, as starting Python takes far longer; the same once."""

    start, answers = subprocess.run, {}

    def run(command, *, timeout=None, **options):
        if "-I" not in command:
            return start(command, timeout=timeout, **options)
        at = command.index(program.__file__)
        kind, source, answer, *names = map(str, command[at + 1 :])
        asked = kind, hashlib.sha256(Path(source).read_bytes()).digest(), *names
        if asked not in answers:
            server = fork_server(*command[:at], "-c", _FORK_SERVER, program.__file__, kind)
            print(json.dumps([kind, source, answer, *names]), file=server.stdin, flush=True)
            status, written = int(server.stdout.readline()), None
            if os.path.exists(answer):
                written = Path(answer).read_bytes()
            answers[asked] = status, written
        else:
            status, written = answers[asked]
            if written is not None:
                Path(answer).write_bytes(written)
        if status == -signal.SIGPROF:
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, status)

    monkeypatch.setattr(subprocess, "run", run)
