"""One function over many image files, in threads, with progress."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def num_cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_threads(function: Callable[[Any], Any], items: Sequence, what: str) -> list:
    """`[function(item) for item in items]`, in threads; Pillow works without the interpreter lock.

    Args:
        function: Should not raise: the first exception ends the whole.
        items: Its arguments.
        what: Says beside the progress what is being done; shown on a terminal only.
    """
    executor = ThreadPoolExecutor(num_cores() + 1)
    try:
        return list(_with_progress(executor.map(function, items), len(items), what))
    finally:
        # Not `with`: an interruption would wait for all that is still queued.
        executor.shutdown(cancel_futures=True)


def _with_progress(results: Iterable, total: int, what: str) -> Iterable:
    shown = 0.0
    try:
        for done, result in enumerate(results, 1):
            yield result
            if sys.stderr.isatty() and (time.monotonic() > shown + 0.2 or done == total):
                shown = time.monotonic()
                print(f"\r{what}: {done} of {total}", end="", file=sys.stderr, flush=True)
    finally:
        if shown:
            print(file=sys.stderr)
