"""Runs programs in forks of one process that has loaded Keras, which takes seconds of CPU.

Standard input is a socket on which `tests.programs` asks for them. A fork differs from a new
process in that Keras and its backend are loaded. They have computed nothing, so that devices,
precision and determinism are still to be chosen.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import sys
import traceback


def load():
    """Loads what programs use."""
    if os.environ["KERAS_BACKEND"] == "jax":
        # Keras would import it, where it is installed, only to set its seed.
        sys.modules["tensorflow"] = None
    import sklearn.datasets  # noqa: F401

    import learn_classifier  # noqa: F401
    import models  # noqa: F401
    from training import fitting, phases  # noqa: F401
    from training.learning import callbacks, losses  # noqa: F401
    from training.reporting import epochs, evaluation, report  # noqa: F401

    gc.freeze()


def serve(requests: socket.socket):
    """Starts a program for every request, which comes with its output, errors and end: 3 files."""
    while True:
        message, files, _, _ = socket.recv_fds(requests, 2**20, 3)
        reap()
        if not message:
            break
        if os.fork() == 0:
            requests.close()
            supervise(json.loads(message), *files)
        for file in files:
            os.close(file)
    if not reap():
        # Whoever asked for the programs that are left is gone.
        os.killpg(0, signal.SIGKILL)


def reap():
    """Waits for supervisors that have ended, so that their times are counted as this process'.

    Returns:
        Whether none is left.
    """
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def supervise(job, output, errors, end):
    """Writes a program's process number and, when it has ended, its status."""
    program = os.fork()
    if program:
        os.close(output), os.close(errors)
        os.write(end, f"{program}\n".encode())
        status = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
        os.write(end, f"{status}\n".encode())
        os._exit(0)
    os.close(end)
    os.dup2(output, 1), os.dup2(errors, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(job["directory"])
    os.environ.update(job["environment"])
    sys.argv = job["command"]
    try:
        if sys.argv[0] == "-c":
            exec(sys.argv.pop(1), {"__name__": "__main__"})
        elif sys.argv[0].endswith(".py"):
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        status = 1
    # What follows in an interpreter's end touches all of the memory that the forks share.
    atexit._run_exitfuncs()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    load()
    serve(socket.socket(fileno=0))
