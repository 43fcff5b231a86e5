"""The child process that reads a stranger's file: `program.py KIND SOURCE ANSWER [NAME…]`.

It needs nothing of this project but the readers beside it. Its answer is a line of JSON, with
what is wrong or the types and shapes of the arrays, and then the arrays' bytes.
"""

import contextlib
import importlib
import json
import os
import resource
import sys

# More than this, and more than 20 times the file, is a declaration without content behind it.
_FLOOR_BYTES = 2**27
_EXPANSION = 20
# Bytes of the first line; the lists of file names in CIFAR take 2 MB.
MAX_HEADER = 2**24


def limit(size: int) -> int:
    """Bytes that the arrays in a file of `size` bytes may take."""
    return max(_FLOOR_BYTES, _EXPANSION * size)


def main(kind: str, source: str, answer: str, *names: str) -> None:
    """Reads `source` and writes `answer`, or why there is none."""
    try:
        sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
        # Libraries are loaded before there are limits.
        reader = importlib.import_module(kind)
        _restrict(limit(os.path.getsize(source)))
        _write(answer, *reader.read(source, *names))
    except MemoryError:
        _refuse(answer, "it takes far more memory than it holds")
    except Exception as error:  # a damaged file raises nearly anything
        _refuse(answer, " ".join(str(error).split())[:500] or type(error).__name__)


def _restrict(content: int) -> None:
    """Limits what this process may write, and its memory."""
    most = content + MAX_HEADER
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    with contextlib.suppress(OSError, ValueError):  # not every system has this
        with open("/proc/self/statm") as file:
            has = int(file.read().split()[0]) * resource.getpagesize()
        # The content twice: packed and as arrays.
        most = has + 2**28 + 2 * content
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _write(answer: str, arrays: dict, texts: dict) -> None:
    """Writes arrays, NumPy's or tuples of type, shape, order and bytes, and lists of text."""
    parts = {
        name: array
        if isinstance(array, tuple)
        else (array.dtype.str, array.shape, "C", array.tobytes())
        for name, array in arrays.items()
    }
    header = {"arrays": {name: part[:3] for name, part in parts.items()}, "texts": texts}
    line = json.dumps(header).encode()
    if len(line) >= MAX_HEADER:
        raise ValueError("it holds too many names")
    with open(answer, "wb") as file:
        file.write(line + b"\n")
        file.writelines(part[3] for part in parts.values())


def _refuse(answer: str, reason: str) -> None:
    with open(answer, "w") as file:
        print(json.dumps({"error": reason}), file=file)


if __name__ == "__main__":
    main(*sys.argv[1:])
