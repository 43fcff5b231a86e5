"""Random numbers as a function of (seed, stream, epoch, position), for every thread the same.

Philox is a counter-based generator: its state is a key and a counter, so any place in the stream
is reached at once and no generator has to be shared between threads.
"""

import numpy as np

# What is drawn; each has numbers of its own, so that drawing more of one changes no other.
SHUFFLE, AUGMENTATION, SUBSET, VALIDATION, FLIP, MIXING = range(6)


def generator(seed: int, stream: int, epoch: int = 0, position: int = 0) -> np.random.Generator:
    """The generator that belongs to one position (an image, a class) of one epoch."""
    return np.random.Generator(
        np.random.Philox(key=seed % 2**128, counter=[0, position, epoch, stream])
    )


def uniforms(seed: int, stream: int, epoch: int, start: int, stop: int, count: int) -> np.ndarray:
    """Uniform numbers in [0, 1) for the positions `start` to `stop`.

    Returns:
        Array `(stop - start, count)`; a row depends on its position, not on `start` or `stop`.
    """
    # One step of the counter gives four numbers.
    steps = -(-count // 4)
    bits = np.random.Philox(key=seed % 2**128, counter=[start * steps, 0, epoch, stream])
    return np.random.Generator(bits).random((stop - start, 4 * steps))[:, :count]
