"""TensorFlow without the dozen lines that it prints as it starts, on machines without a GPU too.

`TF_CPP_MIN_LOG_LEVEL` silences most of them, but not those that its libraries write while they are
loaded, before TensorFlow reads that variable. Whoever sets it to less than 3 sees them.
"""

import contextlib
import importlib.abc
import importlib.machinery
import os
import re
import sys
import tempfile
from collections.abc import Iterator

_LEVEL, _QUIET = "TF_CPP_MIN_LOG_LEVEL", "3"
# Information, warnings and errors as `absl` logs them; what stops an import is an exception.
_NOISE = re.compile(rb"WARNING: All log messages before absl::InitializeLog\(\)|[IWE]\d{4} ")


def install() -> None:
    """Makes a later `import tensorflow`, whoever does it, a quiet one."""
    os.environ.setdefault(_LEVEL, _QUIET)
    if os.environ[_LEVEL] == _QUIET and "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow where Python does, and has it loaded quietly."""

    def find_spec(self, name, path=None, target=None):
        if name != "tensorflow":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module):
                with _without_noise():
                    load(module)

            spec.loader.exec_module = exec_module
        return spec


@contextlib.contextmanager
def _without_noise() -> Iterator[None]:
    """Holds back what is written to stderr, by whatever means, and passes on what is no noise."""
    if sys.stderr is None:  # it is closed
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            with contextlib.suppress(OSError), open(2, "wb", closefd=False) as file:
                file.writelines(line for line in held if not _NOISE.match(line))
