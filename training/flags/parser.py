"""The command line: argument files, numbers within bounds, and errors of one line."""

import argparse
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence

from utils import UsageError, nearest_names

_FILE_BYTES = 2**20
_LARGEST = 1e18  # no number of a training is as large


# A path of the user's directory, alone, behind `--flag=` or in `--embedding hierarchy:~/tree.txt`.
_HOME = re.compile(r"((?:--\w+=)?(?:hierarchy:)?)(~(?:/.*)?)", re.DOTALL)


def _with_home(argument: str) -> str:
    """An argument with the user's directory for `~`, which shells leave in `--data_root=~/x`."""
    match = _HOME.fullmatch(argument)
    if not match or os.path.lexists(match[2]):
        return argument
    return match[1] + os.path.expanduser(match[2])


class _HelpFormatter(argparse.HelpFormatter):
    """Adds the default to the help of flags that have one, and leaves paragraphs as they are."""

    def _fill_text(self, text, width, indent):
        return text if "\n" in text else super()._fill_text(text, width, indent)

    def _get_help_string(self, action):
        text = action.help or ""
        if not action.option_strings or action.nargs == 0 or action.default in (None, []):
            return text
        return f"{text} (default: %(default)s)".strip()


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and whose help shows the defaults.

    `@FILE` among the arguments stands for those in the file (`read_argument_file`).
    """

    def __init__(self, **options):
        super().__init__(
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
            epilog="@FILE stands for the arguments in a file: lines like `--flag value`, with # "
            "before comments.",
            **options,
        )

    def parse_known_args(self, args: Sequence[str] | None = None, namespace=None):
        """As in `argparse`, with argument files in place.

        Raises:
            UsageError: An argument is wrong, or a file of them cannot be read.
        """
        given = sys.argv[1:] if args is None else args
        expanded = []
        for argument in given:
            is_file = argument.startswith("@")
            expanded += read_argument_file(argument[1:]) if is_file else [argument]
        expanded = list(map(_with_home, expanded))
        # Before argparse looks, which would first miss a required flag that has another name here.
        flags = [flag for action in self._actions for flag in action.option_strings]
        for argument in expanded:
            name = argument.partition("=")[0]
            if name == "--":
                break
            if name.startswith("--") and name not in flags:
                self.error(f"{name}: no such flag; {self._hint(name, flags)}")
        found, unknown = super().parse_known_args(expanded, namespace)
        if unknown:
            self.error(f"{unknown[0]}: belongs to no flag")
        for action in self._actions:
            value = getattr(found, action.dest, None)
            if "" in (value if isinstance(value, list) else [value]) and action.const != "":
                name = "/".join(action.option_strings) or action.metavar
                self.error(f"{name}: nothing is given; is a variable of the shell empty?")
        return found, unknown

    def _hint(self, name: str, flags: Sequence[str]) -> str:
        wanted = name.replace("-", "_")
        if (own := f"--{wanted.strip('_')}") in flags:
            return f"did you mean {own}?"
        named = [
            action.option_strings[0]
            for action in self._actions
            for synonym in getattr(action, "synonyms", ())
            if synonym.replace("-", "_") == wanted
        ]
        return f"write {' or '.join(named)}" if named else nearest_names(name, flags)

    def error(self, message: str):
        raise UsageError(f"{message} (--help lists all flags)")


def read_argument_file(path: str) -> list[str]:
    """The arguments in a file: lines as in a shell, `--flag value`, with `#` before comments.

    Raises:
        UsageError: The file cannot be read, or a line is not of that form.
    """
    where = f"@{path}"
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"{where}: {error.strerror}; @FILE reads arguments from a file (write ./@… for a path "
            "that begins with @)"
        ) from None
    except ValueError:
        raise UsageError(f"{where}: expected a text file with arguments") from None
    if len(text) > _FILE_BYTES:
        raise UsageError(f"{where}: expected arguments, at most {_FILE_BYTES} characters of them")
    arguments = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            words = _words(line)
        except ValueError as error:
            raise UsageError(f"{where}: line {number}: {str(error).lower()}") from None
        for word in words:
            if word.startswith("@"):
                raise UsageError(f"{where}: line {number}: {word}: a file cannot name another one")
        arguments += words
    return arguments


def _words(line: str) -> list[str]:
    for comment in re.finditer(r"(?:^|\s)#", line):
        try:
            return shlex.split(line[: comment.start()])
        except ValueError:
            continue  # that # is within quotes
    return shlex.split(line)


def number(
    kind: type = float,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> Callable[[str], float]:
    """An argparse `type`: a finite number of a kind within bounds (`above` and `below` exclusive).

    Args:
        kind: `int` or `float`.
        least: The smallest number allowed.
        above: Every number allowed is greater.
        most: The greatest number allowed.
        below: Every number allowed is smaller.
    """
    limits = [
        f"{words} {bound if isinstance(bound, int) else format(bound, 'g')}"
        for words, bound in (
            ("at least", least),
            ("above", above),
            ("at most", most),
            ("below", below),
        )
        if math.isfinite(bound)
    ]
    expected = " ".join(
        ["expected a whole number" if kind is int else "expected a number", " and ".join(limits)]
    ).strip()

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except (ValueError, OverflowError):
            raise argparse.ArgumentTypeError(f"{text!r}: {expected}") from None
        if abs(value) >= _LARGEST:
            raise argparse.ArgumentTypeError(f"{text}: {expected}, and below {_LARGEST:g}")
        if not (abs(value) < _LARGEST and least <= value <= most and above < value < below):
            raise argparse.ArgumentTypeError(f"{text}: {expected}")
        return value

    return parse
