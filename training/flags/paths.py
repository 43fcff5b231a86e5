"""Checks of the paths that flags name, before anything is loaded."""

import os
from collections.abc import Iterable
from pathlib import Path

from utils import UsageError


def check_input_file(flag: str, path: str, suffix: str | tuple[str, ...] = "") -> None:
    """Refuses a file that is not there, cannot be read, or whose name ends otherwise."""
    if not path.endswith(suffix):
        expected = suffix if isinstance(suffix, str) else " or ".join(suffix)
        raise UsageError(f"{flag} {path}: expected a file whose name ends in {expected}")
    if not os.path.isfile(path):
        raise UsageError(f"{flag} {path}: there is no such file")
    if not os.access(path, os.R_OK):
        raise UsageError(f"{flag} {path}: no permission to read it")


def check_output_file(
    flag: str,
    path: str | None,
    suffixes: str | tuple[str, ...] = "",
    *,
    made_by_run: Iterable[str] = (),
    longest_addition: str = "",
) -> None:
    """Refuses a file that could not be written, or whose name does not fit its format.

    Args:
        flag: The flag, for the message.
        path: Its value, or `None` where it was not given.
        suffixes: How the file's name must end, or in which ways it may.
        made_by_run: Directories that the run makes, which need not be there yet.
        longest_addition: What the run adds to the name for files beside this one.
    """
    if path is None:
        return
    suffixes = (suffixes,) if isinstance(suffixes, str) else suffixes
    name = Path(path).name
    if not name.endswith(suffixes) or name in suffixes:
        stem = flag.strip("-") if name in suffixes else os.path.splitext(name)[0]
        raise UsageError(
            f"{flag} {path}: the file's name must end in {' or '.join(suffixes)}; write "
            f"{os.path.join(os.path.dirname(path), stem + suffixes[0])}"
        )
    if os.path.isdir(path):
        raise UsageError(f"{flag} {path}: is a directory; give a file's name")
    directory = os.path.dirname(os.path.abspath(path))
    most = longest_name(directory) - len(os.fsencode(longest_addition))
    if len(os.fsencode(name)) > most:
        raise UsageError(
            f"{flag} {path}: the file's name has {len(os.fsencode(name))} bytes, expected at most "
            f"{most}; give a shorter one"
        )
    if directory not in map(os.path.abspath, made_by_run):
        check_writable(flag, path, directory)


def check_output_directory(flag: str, path: str, directory: str) -> None:
    """Refuses a directory that a run could neither write to nor make, with those above it."""
    directory = os.path.abspath(directory)
    while not os.path.exists(directory):
        directory = os.path.dirname(directory)
    check_writable(flag, path, directory)


def longest_name(directory: str) -> int:
    """How many bytes a file's name may have in a directory, which need not be there yet."""
    while not os.path.isdir(directory) and os.path.dirname(directory) != directory:
        directory = os.path.dirname(directory)
    try:
        return os.pathconf(directory, "PC_NAME_MAX")
    except (OSError, ValueError):  # a file system that does not say
        return 255


def check_writable(flag: str, path: str, directory: str) -> None:
    if not os.path.isdir(directory):
        raise UsageError(f"{flag} {path}: there is no directory {directory}; create it first")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UsageError(f"{flag} {path}: the directory {directory} is not writable")
