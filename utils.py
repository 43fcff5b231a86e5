"""Small helpers that several rooms need: user errors, whole-file writes, safe unpickling.

Nothing here imports Keras, so that scripts can check their arguments before loading a backend.
"""

import contextlib
import difflib
import logging
import os
import pickle
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn


class UserError(Exception):
    """A mistake the user can mend: its message is one line and is shown without a traceback.

    The message names the file, flag or value, what was expected and what to do.
    """

    exit_status = 1
    prefix = "error: "


class UsageError(UserError):
    """A user error found in the arguments, before anything was loaded or trained."""

    exit_status = 2


def run_script(main: Callable[[], int | None]) -> NoReturn:
    """Runs a script's `main` and turns a `UserError` into one line on stderr and its status.

    What the project's rooms log goes to stderr too, line by line.
    """
    program = Path(sys.argv[0]).name
    logging.basicConfig(format="%(message)s")
    for room in ("datasets", "embeddings", "training"):
        logging.getLogger(room).setLevel(logging.INFO)
    try:
        status = main() or 0
    except UserError as error:
        print(f"{program}: {error.prefix}{one_line(error)}", file=sys.stderr)
        status = error.exit_status
    except ModuleNotFoundError as error:
        if error.name is None or (Path(__file__).parent / error.name.split(".")[0]).exists():
            raise  # a mistake of ours, not a package that is not installed
        print(
            f"{program}: error: the Python package {error.name} is not installed: "
            "pip install -r requirements.txt (with KERAS_BACKEND=jax: requirements-jax.txt)",
            file=sys.stderr,
        )
        status = 1
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # The reader of a pipe (`| head`) went away; keep the interpreter's last flush quiet.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        else:
            where = f"{error.filename}: " if error.filename else ""
            print(f"{program}: error: {where}{error.strerror or error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)


_LINE_LENGTH = 900


def one_line(error: Exception) -> str:
    """An error's message as one line of bounded length, whatever bytes of a file it quotes."""
    line = " ".join(str(error).split())
    if len(line) > _LINE_LENGTH:
        line = f"{line[: _LINE_LENGTH // 2]} … {line[-_LINE_LENGTH // 2 :]}"
    # Terminals obey control characters.
    return "".join(character if character.isprintable() else "?" for character in line)


def nearest_names(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: `did you mean X or Y?`, or known names if none is near."""
    known = list(known)
    by_lower = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), list(by_lower), n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(by_lower[n] for n in near)}?"
    more = ", …" if len(known) > 20 else ""
    return f"known: {', '.join(known[:20])}{more}"


# Seconds without a change after which an unfinished file is taken for one of a process that was
# killed. Whether that lives cannot be asked: it may be another container's or another machine's.
_ABANDONED = 24 * 3600


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `target` that becomes `target` whole, or not at all.

    The temporary file has the same suffixes as the target (writers choose a format by them). It
    is flushed to disk before the rename, so that a crash leaves either the old file or the new.
    What a crash left of an earlier attempt at the same target is removed when it is a day old.
    """
    target = Path(target)
    suffixes = "".join(target.suffixes)
    prefix = f".{target.name.removesuffix(suffixes)}.partial-"
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=suffixes, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        _remove_abandoned(temporary, prefix, suffixes)
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


def _remove_abandoned(temporary: Path, prefix: str, suffixes: str) -> None:
    """Removes the files beside `temporary` that are named like it and were left by a crash."""
    name = re.compile(f"{re.escape(prefix)}[a-z0-9_]{{8}}{re.escape(suffixes)}")
    # What cannot be removed is no reason to write nothing.
    with contextlib.suppress(OSError):
        # The file system's own clock, which may be another machine's.
        now = temporary.stat().st_mtime
        for entry in os.scandir(temporary.parent):
            if name.fullmatch(entry.name) and now - entry.stat().st_mtime > _ABANDONED:
                os.unlink(entry)


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
            ("numpy.core.numeric", "_frombuffer"),
            ("numpy._core.numeric", "_frombuffer"),  # protocol 5
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
        raise UserError(f"{path}: damaged or not a pickle ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    # Some messages quote the file at length.
    return (str(error) or type(error).__name__)[:300]


# An archive of a few kilobytes can hold gigabytes of zeros; what is legitimately that large does
# not shrink that much.
_NPZ_BYTES = 2**30
_NPZ_EXPANSION = 20


# Seconds; the largest networks' weights take a few.
READ_TIMEOUT = 60


def read_isolated(
    program: str, path: str | os.PathLike, *arguments: str, kind: str
) -> dict[str, Any]:
    """Reads a foreign file in a process of its own, which may crash, hang or run out of memory.

    Args:
        program: A Python file that needs nothing of this project; it is run with the path, the
            `.npz` it is to write, and the arguments. Its last line on stderr says what is wrong.
        path: The file.
        *arguments: More arguments.
        kind: What the file should be, for messages.

    Returns:
        The arrays that it wrote.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        open(path, "rb").close()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    with tempfile.TemporaryDirectory() as directory:
        output = os.path.join(directory, "arrays.npz")
        command = [sys.executable, "-I", program, os.path.abspath(path), output, *arguments]
        try:
            done = subprocess.run(command, capture_output=True, timeout=READ_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise UserError(f"{path}: damaged: reading it does not come to an end") from None
        if done.returncode:
            text = done.stderr.decode(errors="replace") if done.returncode == 1 else ""
            reason = "".join(text.strip().splitlines()[-1:])
            raise UserError(
                f"{path}: damaged or not a {kind} ({reason[:300] or 'reading it fails'})"
            )
        return load_npz(output, [])


def load_npz(path: str | os.PathLike, required: Iterable[str]) -> dict[str, Any]:
    """Reads all arrays of an `.npz` file; arrays of Python objects, which are pickles, are refused.

    Args:
        path: The file.
        required: Names of arrays that must be there.

    Raises:
        UserError: The file cannot be read, is damaged or no `.npz`, or lacks an array.
    """
    import numpy as np

    try:
        # NumPy leaves a file open that it opened itself and then found to be damaged.
        with open(path, "rb") as file:
            with zipfile.ZipFile(file) as members:
                declared = sum(member.file_size for member in members.infolist())
            if declared > max(_NPZ_BYTES, _NPZ_EXPANSION * os.fstat(file.fileno()).st_size):
                raise ValueError(f"it would take {declared / 2**30:.0f} GiB of memory")
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # a damaged archive raises nearly anything
        raise UserError(
            f"{path}: damaged or not an .npz of plain arrays ({_reason(error)})"
        ) from None
    missing = [name for name in required if name not in arrays]
    if missing:
        raise UserError(
            f"{path}: not the expected kind of .npz: it has no array {' or '.join(missing)}, "
            f"only {', '.join(arrays) or 'none'}"
        )
    return arrays
