"""One function over many image files, in threads, with progress."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

logger = logging.getLogger(__name__)

# Seconds between two lines of progress where they cannot overwrite each other.
_BETWEEN_LINES = 30


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
        what: Says beside the progress what is being done; not on a terminal a line now and then.
    """
    executor = ThreadPoolExecutor(num_cores() + 1)
    try:
        return list(_with_progress(executor.map(function, items), len(items), what))
    finally:
        # Not `with`: an interruption would wait for all that is still queued.
        executor.shutdown(cancel_futures=True)


def _with_progress(results: Iterable, total: int, what: str) -> Iterable:
    terminal = sys.stderr.isatty()
    begun = shown = time.monotonic()
    try:
        for done, result in enumerate(results, 1):
            yield result
            now = time.monotonic()
            if terminal and (now > shown + 0.2 or done == total):
                shown = now
                print(f"\r{what}: {done} of {total}", end="", file=sys.stderr, flush=True)
            elif not terminal and now >= shown + _BETWEEN_LINES and done < total:
                shown = now
                left = (now - begun) / done * (total - done)
                logger.info("%s: %d of %d, about %.0f s left", what, done, total, left)
    finally:
        if terminal and shown > begun:
            print(file=sys.stderr)
