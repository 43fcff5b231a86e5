"""What a sweep varies: ranges of flags, as `--tune NAME log 1e-4 1` gives them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from utils import UsageError

# The learning rates that the paper tried for every loss and data set.
PAPER_GRID = ("sgdr_max_lr", "of", "2.5", "1", "0.5", "0.1", "0.05", "0.01", "0.005", "0.001")
_FORMS = "log LO HI, lin LO HI, int LO HI or of VALUE VALUE …"
_EDGE = 0.05


@dataclass(frozen=True)
class Range:
    """The values that a flag may take.

    Attributes:
        name: The flag without its dashes.
        kind: `log` or `lin` (a number, evenly on that scale), `int`, or `of` (one of a list).
        values: The two ends, or the list; as given on the command line.
    """

    name: str
    kind: str
    values: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        """As on the command line."""
        return [self.name, self.kind, *self.values]

    @property
    def ends(self) -> tuple[float, float]:
        """The two ends of a range of numbers."""
        low, high = map(int if self.kind == "int" else float, self.values)
        return low, high

    def distribution(self):
        """The same for Optuna."""
        from optuna import distributions

        if self.kind == "of":
            return distributions.CategoricalDistribution(self.values)
        if self.kind == "int":
            return distributions.IntDistribution(*self.ends)
        return distributions.FloatDistribution(*self.ends, log=self.kind == "log")

    def edge(self, value: Any) -> str | None:
        """Says so if a value lies at an end of the range, beyond which a better one may be."""
        if self.kind == "of":
            try:
                numbers = sorted(map(float, self.values))
            except ValueError:
                return None  # words have no order
            at_end = len(numbers) > 2 and float(value) in (numbers[0], numbers[-1])
        else:
            scale = math.log if self.kind == "log" else float
            low, high = map(scale, self.ends)
            share = (scale(value) - low) / (high - low)
            at_end = not _EDGE < share < 1 - _EDGE
        if not at_end:
            return None
        return (
            f"the best {self.name}, {shown(value)}, lies at the edge of what was tried "
            f"({' '.join(self.words[1:])}): a better one may lie beyond; sweep over a wider range"
        )


def shown(value: Any) -> str:
    """A value for people, with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def parse_range(words: Sequence[str]) -> Range:
    """The range that the words after `--tune` describe.

    Raises:
        UsageError: They describe none.
    """
    where = f"--tune {' '.join(words)}"
    if len(words) < 3 or words[1] not in ("log", "lin", "int", "of"):
        raise UsageError(f"{where}: expected NAME {_FORMS}")
    name, kind, *values = words
    found = Range(name.lstrip("-"), kind, tuple(values))
    if kind == "of":
        if len(set(values)) < len(values) or len(values) < 2:
            raise UsageError(f"{where}: expected two or more different values")
        return found
    try:
        low, high = found.ends
    except ValueError:
        raise UsageError(f"{where}: expected two {'whole ' * (kind == 'int')}numbers") from None
    if not low < high < math.inf or (kind == "log" and low <= 0):
        raise UsageError(f"{where}: expected the lower end first{' and above 0' * (kind == 'log')}")
    return found


def flags_of(values: Mapping[str, Any]) -> list[str]:
    """Values as flags of the command line, numbers with all their digits."""
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def without_flags(argv: Sequence[str], names: Sequence[str]) -> list[str]:
    """A command line without some flags and their values.

    Args:
        argv: The arguments.
        names: Flags, each with one value, as in `--fold`.
    """
    left, skip = [], False
    for word in argv:
        if skip:
            skip = False
        elif word in names:
            skip = True
        elif word.partition("=")[0] not in names:
            left.append(word)
    return left
