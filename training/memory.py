"""Memory on a CPU: what one step frees is kept for the next, not handed back to the system.

TensorFlow allocates and frees every tensor of a step with C's `malloc`. glibc gives large blocks
back to the system at once, which then clears the same pages again for the next step; and where
TensorFlow reads batches from Python it lowers the limit of such blocks to 128 KB for the whole
process (a call of `mallopt` as it makes its first `GeneratorDataset`; seen in TensorFlow 2.21).
That was 40 % of the processor time of a training of small images, see `benchmarks/memory.py`.
"""

import contextlib
import ctypes
from collections.abc import Callable

import keras

# Parameters of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def keep_freed() -> None:
    """Lets `malloc` keep freed blocks of up to 1 GiB; does nothing where that is not glibc's.

    The process's peak stays about the same; between the steps it keeps what they need.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018  # another malloc's mallopt knows other parameters
        libc.mallopt(_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


class KeepFreed(keras.callbacks.Callback):
    """Sets the limits after the first batch, by when TensorFlow has set its own."""

    def __init__(self, limits: Callable[[], None] = keep_freed):
        super().__init__()
        self._limits: Callable[[], None] | None = limits

    def on_train_batch_end(self, batch, logs=None):
        if self._limits:
            self._limits()
            self._limits = None

    def on_predict_batch_end(self, batch, logs=None):
        self.on_train_batch_end(batch)
