"""Small helpers that several rooms need: user errors, whole-file writes, safe unpickling.

Nothing here imports Keras, so that scripts can check their arguments before loading a backend.
"""

import contextlib
import difflib
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn


class UserError(Exception):
    """A mistake the user can mend: its message is one line and is shown without a traceback.

    The message names the file, flag or value, what was expected and what to do.
    """

    exit_status = 1


class UsageError(UserError):
    """A user error found in the arguments, before anything was loaded or trained."""

    exit_status = 2


def run_script(main: Callable[[], int | None]) -> NoReturn:
    """Runs a script's `main` and turns a `UserError` into one line on stderr and its status."""
    program = Path(sys.argv[0]).name
    try:
        status = main() or 0
    except UserError as error:
        # A message may quote a foreign file's bytes: never let those break the one line.
        line = " ".join(str(error).split())
        print(f"{program}: error: {line}", file=sys.stderr)
        status = error.exit_status
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:
        # The reader of a pipe (`| head`) went away; keep the interpreter's last flush quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)


def nearest_names(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: `did you mean X or Y?`, or all known names if none is near."""
    known = list(known)
    by_lower = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), list(by_lower), n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(by_lower[n] for n in near)}?"
    return f"known: {', '.join(known)}"


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `target` that becomes `target` whole, or not at all.

    The temporary file has the same suffixes as the target (writers choose a format by them). It
    is flushed to disk before the rename, so that a crash leaves either the old file or the new.
    """
    target = Path(target)
    suffixes = "".join(target.suffixes)
    handle, name = tempfile.mkstemp(
        prefix=f".{target.name.removesuffix(suffixes)}.", suffix=suffixes, dir=target.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        # mkstemp's 0600 is for secrets; results get the permissions any new file would get.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


class _RestrictedUnpickler(pickle.Unpickler):
    """Admits NumPy arrays, NumPy scalars and plain containers; refuses every other global."""

    _ADMITTED = frozenset(
        {
            ("_codecs", "encode"),  # Python 2 byte strings in protocol 2
            ("builtins", "set"),
            ("__builtin__", "set"),
            ("collections", "OrderedDict"),
            ("numpy", "dtype"),
            ("numpy", "ndarray"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy.core.multiarray", "scalar"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "scalar"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ADMITTED:
            raise UserError(f"refused: it asks for {module}.{name}, which a data file never needs")
        # NumPy 2 renamed `numpy.core`; the old name warns.
        return super().find_class(module.replace("numpy.core.", "numpy._core."), name)


def load_pickle(path: str | os.PathLike, *, encoding: str = "bytes") -> Any:
    """Reads a foreign pickle that holds only NumPy arrays and plain containers.

    Args:
        path: The file.
        encoding: How Python 2 strings are decoded; `"bytes"` keeps them as they are.

    Raises:
        UserError: The file cannot be read, is no pickle, or asks for anything that could run code.
    """
    try:
        with open(path, "rb") as file:
            return _RestrictedUnpickler(file, encoding=encoding).load()
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except MemoryError:
        raise UserError(f"{path}: not a pickle of arrays: it declares an impossible size") from None
    except Exception as error:  # a damaged pickle raises nearly anything
        raise UserError(
            f"{path}: damaged or not a pickle ({error or type(error).__name__})"
        ) from None
