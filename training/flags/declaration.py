"""How a flag is declared: its form on the command line, and what is true of it.

A declaration stands beside the code that uses the flag. The parsers, the rules of resuming and of
several processes, and the table in docs/flags.md all follow from it.
"""

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A flag of the command line.

    Attributes:
        name: As it is typed, `--epochs`; without dashes it is a positional argument.
        help: What it does.
        action: `store`, `append` or `store_true`, as in `argparse`.
        type: Turns the text into the value.
        default: The value where the flag is not given.
        default_text: What follows from other arguments where it is not given, in words.
        metavar: Stands for the value in the help.
        choices: The values there are.
        nargs: How many values there are, as in `argparse`.
        const: The value where the flag is given without one.
        required: Whether it has to be given.
        on_resume: Whether a training that is resumed may have another value. `same`: no, as it
            changes the result; `allowed`: only with `--snapshot_allow NAME`; `free`: yes.
        same_if: Says of resolved arguments whether a `free` one has to be the same after all.
        per_process: Whether processes that train together may have different values.
        writes: Whether it makes the run write files, which is left to one process.
        only_with: A flag and the value of it without which this one does nothing.
        synonyms: Other programs' names for it; who types one is told this one.
        instead: What to write in place of a value that users of other programs may try.
    """

    name: str = field(kw_only=False)
    help: str
    action: str = "store"
    type: Callable[[str], Any] | None = None
    default: Any = None
    default_text: str = ""
    metavar: str | None = None
    choices: Sequence[str] | None = None
    nargs: str | None = None
    const: Any = None
    required: bool | None = None
    on_resume: Literal["same", "allowed", "free"] = "same"
    same_if: Callable[[argparse.Namespace], bool] | None = None
    per_process: bool = False
    writes: bool = False
    only_with: tuple[str, str] | None = None
    synonyms: tuple[str, ...] = ()
    instead: Mapping[str, str] = field(default_factory=dict)

    @property
    def dest(self) -> str:
        """Its name among the parsed arguments."""
        return self.name.lstrip("-")

    @property
    def unset(self) -> Any:
        """The value that it has where it is not given."""
        return False if self.action == "store_true" else self.default

    def add_to(self, parser) -> None:
        """Adds the flag to a parser, or to a group of one."""
        text = f"{self.help} (default: {self.default_text})" if self.default_text else self.help
        names = ("type", "default", "metavar", "choices", "nargs", "const", "required")
        options = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.instead:
            options["type"] = self._value
        action = parser.add_argument(
            self.name, help=text.replace("%", "%%"), action=self.action, **options
        )
        action.synonyms = self.synonyms

    def _value(self, text: str) -> Any:
        if advice := self.instead.get(text.lower()):
            raise argparse.ArgumentTypeError(f"{text}: {advice}")
        return self.type(text) if self.type else text


@dataclass(frozen=True)
class FlagGroup:
    """Flags that the help shows together.

    Attributes:
        title: What they are about.
        flags: In the order of the help.
        description: A sentence on all of them.
    """

    title: str
    flags: tuple[Flag, ...]
    description: str | None = None


def add_groups(parser: argparse.ArgumentParser, groups: Iterable[FlagGroup]) -> None:
    """Adds groups of flags to a parser."""
    for group in groups:
        added = parser.add_argument_group(group.title, group.description)
        for flag in group.flags:
            flag.add_to(added)


def flags_of(groups: Iterable[FlagGroup]) -> list[Flag]:
    """The flags of groups, in their order."""
    return [flag for group in groups for flag in group.flags]


def free_on_resume(flags: Iterable[Flag], args: argparse.Namespace) -> set[str]:
    """Names of the arguments that may differ from those of the training that is resumed."""
    return {
        flag.dest
        for flag in flags
        if flag.on_resume == "free" and not (flag.same_if and flag.same_if(args))
    }


def allowed_on_resume(flags: Iterable[Flag]) -> list[str]:
    """Names of the arguments that `--snapshot_allow` may let differ."""
    return [flag.dest for flag in flags if flag.on_resume == "allowed"]


_ON_RESUME = {"same": "the same", "allowed": "`--snapshot_allow`", "free": "may change"}


def markdown(groups: Iterable[FlagGroup]) -> str:
    """The tables of the documentation: a section for each group, a row for each flag."""
    lines = []
    for group in groups:
        title = group.title[0].upper() + group.title[1:]
        lines += ["", f"## {title}", ""]
        if group.description:
            lines += [_escaped(f"{group.description[0].upper()}{group.description[1:]}."), ""]
        lines += ["| flag | default | meaning | on resuming |", "|---|---|---|---|"]
        for flag in group.flags:
            values = ", ".join(flag.choices) if flag.choices and not flag.metavar else flag.metavar
            name = f"`{flag.name}`" + (f" {_escaped(values)}" if values else "")
            default = _escaped(flag.default_text or _value(flag.default))
            meaning = _escaped(flag.help)
            lines.append(f"| {name} | {default} | {meaning} | {_ON_RESUME[flag.on_resume]} |")
    return "\n".join(lines[1:]) + "\n"


def _value(default: Any) -> str:
    return "" if default in (None, []) else str(default)


def _escaped(text: str) -> str:
    return re.sub(r"([*|<>])", r"\\\1", text)
