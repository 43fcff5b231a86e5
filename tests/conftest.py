import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Seconds; libraries hang on some damaged files, and read the others in milliseconds.
_TIMEOUT = 3
_FORK_SERVER = f"""
import json, os, runpy, signal, sys
import h5py, scipy.io
programs = {{}}
for line in sys.stdin:
    program, *arguments = json.loads(line)
    main = programs.get(program) or runpy.run_path(program)["main"]
    programs[program] = main
    child = os.fork()
    if not child:
        signal.alarm({_TIMEOUT})
        os.dup2(os.open(arguments[1] + ".errors", os.O_WRONLY | os.O_CREAT), 2)
        status = 0
        try:
            main(*arguments)
        except SystemExit as error:
            print(error, file=sys.stderr, flush=True)
            status = 1
        os._exit(status)
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
    """`read_isolated` reads in forks of one process: starting Python takes far longer."""

    start = subprocess.run

    def run(command, *, timeout=None, **options):
        if "-I" not in command:
            return start(command, timeout=timeout, **options)
        _, _, program, *arguments = command
        print(json.dumps([program, *map(str, arguments)]), file=fork_server.stdin, flush=True)
        status = int(fork_server.stdout.readline())
        if status == -signal.SIGALRM:
            raise subprocess.TimeoutExpired(command, timeout)
        errors = Path(f"{arguments[1]}.errors").read_bytes()
        return subprocess.CompletedProcess(command, status, b"", errors)

    monkeypatch.setattr(subprocess, "run", run)
