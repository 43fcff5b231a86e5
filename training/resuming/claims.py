"""Claims: no two runs at once write to the same log directory or the same snapshot."""

import contextlib
import fcntl
import os
import platform
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from training.reporting.flags import log_dir_flag
from utils import UsageError


@contextlib.contextmanager
def claimed(args: Namespace) -> Iterator[None]:
    """Within it `--log_dir` and `--snapshot` belong to this run; their directories are made.

    A claim ends with the process, however that ends.

    Args:
        args: Resolved arguments.

    Raises:
        UsageError: Another run writes there now.
    """
    with contextlib.ExitStack() as claims:
        if args.log_dir:
            lock = Path(args.log_dir) / ".lock"
            claims.enter_context(_claim(log_dir_flag(args), args.log_dir, lock))
        if args.snapshot:
            lock = Path(f"{args.snapshot}.lock")
            claims.enter_context(_claim("--snapshot", args.snapshot, lock))
        yield


@contextlib.contextmanager
def _claim(flag: str, path: str, lock: Path) -> Iterator[None]:
    is_new = not lock.parent.exists()
    lock.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _open_locked(flag, path, lock)
    with contextlib.suppress(OSError):  # who it is helps others, but is not needed
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)
        if is_new:
            with contextlib.suppress(OSError):  # where nothing was written
                lock.parent.rmdir()


def _open_locked(flag: str, path: str, lock: Path) -> int:
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 200).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise UsageError(
                f"{flag} {path}: another run writes there now ({owner}); wait for its end, or "
                f"give another {flag}"
            ) from None
        except OSError:
            return descriptor  # some network file systems have no locks
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                return descriptor
        os.close(descriptor)  # its owner removed it just now
