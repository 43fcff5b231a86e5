"""What every room needs: errors of the user, and files that are written whole or not at all.

Nothing here imports Keras, so that scripts can check their arguments before loading a backend.
"""

import contextlib
import difflib
import hashlib
import io
import logging
import os
import re
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn, TextIO


class UserError(Exception):
    """A mistake the user can mend: its message is one line and is shown without a traceback.

    The message names the file, flag or value, what was expected and what to do.
    """

    exit_status = 1
    prefix = "error: "


class UsageError(UserError):
    """A user error found in the arguments, before anything was loaded or trained."""

    exit_status = 2


def run_script(main: Callable[[], int | None], *, only_reports: bool = False) -> NoReturn:
    """Runs a script's `main` and turns a `UserError` into one line on stderr and its status.

    What the project's rooms log goes to stderr too, line by line. Names that the terminal's
    encoding lacks are shown with escapes. Where no more can be written to stdout or stderr, as on
    a full disk, the script goes on.

    Args:
        main: Returns the exit status; `None` stands for 0.
        only_reports: What it prints only reports on what it does: its status does not become 1 if
            that cannot be written, and errors may be among it.
    """
    handler = logging.StreamHandler(_lenient("stderr"))
    handler.setFormatter(_PrintableFormatter())
    logging.basicConfig(handlers=[handler])
    output = _lenient("stdout")
    for room in ("datasets", "embeddings", "training"):
        logging.getLogger(room).setLevel(logging.INFO)
    try:
        status = main() or 0
        output.flush()
    except BaseException as error:
        if isinstance(error, BrokenPipeError):
            # The reader of a pipe (`| head`) went away; keep the interpreter's last flush quiet.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in (output, sys.stderr):
                try:
                    stream.flush()
                except BrokenPipeError:
                    os.dup2(nowhere, stream.fileno())
            sys.exit(1)
        line, status = _explained(error)
        if line is None:
            raise
        say(line, file=sys.stderr)
        if _is_discarded(sys.stderr):
            _say_elsewhere(line, output if only_reports else None)
    raw = getattr(getattr(output, "buffer", None), "raw", None)
    if isinstance(raw, _LenientFile) and raw.failed and not only_reports:
        status = status or 1
    sys.exit(status)


def _is_discarded(stream: TextIO) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.stat(os.devnull))
    except (OSError, ValueError):  # a stream of a test
        return False


def _say_elsewhere(line: str, output: TextIO | None) -> None:
    """Says why a script ended where `2>/dev/null` hides it, as in the published search for a rate.

    Args:
        line: The reason.
        output: Where to say it besides on the terminal that the script was started from, which
            sees it also where a filter follows.
    """
    if output is not None:
        with contextlib.suppress(OSError):
            say(line, file=output)
    if output is None or not output.isatty():
        with contextlib.suppress(OSError), open("/dev/tty", "w", errors="replace") as terminal:
            say(line, file=terminal)


def _explained(error: BaseException) -> tuple[str | None, int]:
    """What ended a script, in one line, and its status; no line for a mistake of ours."""
    program = Path(sys.argv[0]).name
    if isinstance(error, UserError):
        return f"{program}: {error.prefix}{one_line(error)}", error.exit_status
    if isinstance(error, KeyboardInterrupt):
        return f"{program}: interrupted", 130
    if isinstance(error, ModuleNotFoundError) and not _is_ours(error.name):
        reason = (
            f"the Python package {error.name} is not installed: pip install -r "
            "requirements.txt (with KERAS_BACKEND=jax: requirements-jax.txt)"
        )
    elif isinstance(error, ImportError) and not _is_ours(error.name):
        reason = f"a library cannot be loaded; is there enough memory? ({one_line(error)})"
    elif isinstance(error, MemoryError):
        reason = f" ({one_line(error)})" if str(error) else ""
        reason = f"not enough memory{reason}; free some, or take smaller batches, images or files"
    elif isinstance(error, OSError):
        reason = f"{error.filename}: " if error.filename else ""
        reason += error.strerror or str(error)
    else:
        return None, 1
    return f"{program}: error: {reason}", 1


def _is_ours(module: str | None) -> bool:
    """Whether a module is of this project, where its absence is no package to install."""
    room, here = (module or "").split(".")[0], Path(__file__).parent
    return bool(room) and ((here / room).exists() or (here / f"{room}.py").exists())


def _explain_import(kind: type[BaseException], error: BaseException, traceback) -> None:
    """One line for what fails while a script imports what it needs, before `run_script`."""
    line, _ = _explained(error)
    if line is None:
        sys.__excepthook__(kind, error, traceback)
    else:
        say(line, file=sys.stderr)


def _main_is_script() -> bool:
    main = getattr(sys.modules["__main__"], "__file__", None)
    return bool(main) and Path(main).resolve().parent == Path(__file__).resolve().parent


if _main_is_script():
    sys.excepthook = _explain_import


class _LenientFile(io.FileIO):
    """A standard stream that drops what cannot be written, as on a full disk, and says so once.

    Attributes:
        failed: Whether something was dropped.
    """

    failed = False

    def write(self, data):
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            first, self.failed = not self.failed, True
            if first and self.fileno() != 2:
                program = Path(sys.argv[0]).name
                say(
                    f"{program}: warning: the output cannot be written ({error.strerror}); what "
                    "follows is not all shown",
                    file=sys.stderr,
                )
            return len(data)


def _lenient(name: str) -> TextIO:
    """`sys.stdout` or `sys.stderr`, made to bear a full disk and names that its encoding lacks."""
    stream = getattr(sys, name)
    if stream is None:  # it was closed by who started the program
        stream = open(os.devnull, "w")  # noqa: SIM115
    elif isinstance(stream, io.TextIOWrapper):
        if stream is getattr(sys, f"__{name}__"):
            stream.flush()
            stream = io.TextIOWrapper(
                io.BufferedWriter(_LenientFile(stream.fileno(), "w", closefd=False)),
                encoding=stream.encoding,
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
        stream.reconfigure(errors="backslashreplace")
    setattr(sys, name, stream)
    return stream


class _PrintableFormatter(logging.Formatter):
    """One line for each record, whatever names of files and classes are in it."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def say(*fields: object, sep: str = " ", file: TextIO | None = None) -> None:
    """Prints a line of text that names files, classes or what else comes from outside."""
    print(*(printable(str(field)) for field in fields), sep=sep, file=file, flush=True)


_LINE_LENGTH = 900


def one_line(error: Exception) -> str:
    """An error's message as one line of bounded length, whatever bytes of a file it quotes."""
    line = " ".join(str(error).split())
    if len(line) > _LINE_LENGTH:
        line = f"{line[: _LINE_LENGTH // 2]} … {line[-_LINE_LENGTH // 2 :]}"
    return printable(line)


def printable(text: str) -> str:
    """A text for a terminal, which would obey control characters; `?` stands for each."""
    return "".join(
        character if character.isprintable() or unicodedata.category(character) == "Zs" else "?"
        for character in text
    )


def counted(count: int, one: str, several: str | None = None) -> str:
    """A number of things in words: `1 image`, `1,000 images`, or `2 classes have` if that is given.

    Args:
        count: How many.
        one: What one is called, perhaps with its verb.
        several: What several are called; by default `one` with an s.
    """
    return f"{count:,} {one if count == 1 else several or one + 's'}"


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
# Bytes of a file's name from which on what makes it a temporary one could be too much.
_LONG_NAME = 200


def user_cache_dir() -> Path:
    """The user's cache directory; a temporary one for users without a directory of their own."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser(os.path.join("~", ".cache"))
    if not os.path.isabs(base):  # neither HOME nor an entry in passwd, as in some containers
        return Path(tempfile.gettempdir()) / f"learn_classifier-{os.getuid()}"
    return Path(base) / "learn_classifier"


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `target` that becomes `target` whole, or not at all.

    The temporary file has the same suffixes as the target (writers choose a format by them). It
    is flushed to disk before the rename, so that a crash leaves either the old file or the new.
    What a crash left of an earlier attempt at the same target is removed when it is a day old.
    """
    target = Path(target)
    suffixes = "".join(target.suffixes)
    stem = target.name.removesuffix(suffixes)
    if len(os.fsencode(target.name)) > _LONG_NAME:
        # File systems allow 255 bytes, and all of the target's own may be in use.
        stem = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:20]
        suffixes = suffixes if len(os.fsencode(suffixes)) <= _LONG_NAME else ""
    prefix = f".{stem}.partial-"
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
    except OSError as error:
        if error.errno is not None:
            # A full disk has no name, and that of the temporary file says little.
            error.filename = str(target)
        raise
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
