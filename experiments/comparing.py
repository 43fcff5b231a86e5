"""Which runs are compared with which, and what can be said of them."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from experiments import statistics
from experiments.runs import REPETITION, Run, differing, read_predictions
from experiments.statistics import LEVEL
from utils import UsageError


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone, or in what the caller left open.

    Attributes:
        name: What tells it from the other groups.
        runs: Its runs.
        scores: Their scores, in the same order, in [0, 1].
        mixed: Further arguments in which its runs differ.
    """

    name: str
    runs: list[Run]
    scores: list[float]
    mixed: list[str] = field(default_factory=list)

    @property
    def summary(self) -> statistics.Summary:
        return statistics.summarize(self.scores)

    @property
    def selected_on(self) -> str:
        """What chose between epochs or settings in its runs."""
        return " and ".join(sorted({run.selected_on for run in self.runs}))


@dataclass
class Comparison:
    """What two groups say about each other; differences are second minus first.

    Attributes:
        first: Name of the one group.
        second: Name of the other.
        paired: Whether over pairs of the same seed.
        n: The number of pairs; unpaired the smaller number of runs.
        difference: Of the means, or `None` where nothing can be compared.
        sd: Standard deviation of the paired differences.
        low: Lower end of the difference's 95 % interval.
        high: Its upper end.
        p: Of the sign-flip test; unpaired of the permutation test.
        p_holm: The same, adjusted for all comparisons.
        detectable: The difference that so many pairs would probably have found.
        mcnemar: For every pair with predictions its repetition, the images that only the first or
            only the second classified rightly, p, and p adjusted for all such tests.
        alone: Repetitions that only one of the groups has.
        verdict: All of it in a sentence.
    """

    first: str
    second: str
    paired: bool
    n: int = 0
    difference: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    detectable: float | None = None
    mcnemar: list[dict] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)
    verdict: str = ""


def describe_repetition(repetition: tuple) -> str:
    """`seed 3, fold 1/5` for the values of `runs.REPETITION`."""
    parts = zip(REPETITION, repetition, strict=True)
    return ", ".join(f"{name} {value}" for name, value in parts if value not in (None, "")) or "-"


def group_runs(runs: Sequence[Run], free: Collection[str], by: Sequence[str], metric: str):
    """Groups runs by all their arguments but the seed, or by some.

    Args:
        runs: The runs.
        free: Arguments that change no result.
        by: Names of arguments, of which alone the groups are made; empty: of all.
        metric: The score, as `Run.score` takes it.

    Raises:
        UsageError: An argument is unknown, or two runs of a group have the same seed.
    """
    known = {name for run in runs for name in run.arguments}
    for name in by:
        if name not in known:
            raise UsageError(f"--by {name}: no run has such an argument")
    names = by or sorted(known.difference(free, REPETITION))
    parts: dict[tuple, list[Run]] = {}
    for run in runs:
        parts.setdefault(tuple(repr(run.arguments.get(name)) for name in names), []).append(run)
    differences = differing(runs, {*free, *REPETITION})
    shown = list(by or differences)
    return [make_group(part, _settings(part[0], shown), free, metric) for part in parts.values()]


def make_group(runs: list[Run], name: str, free: Collection[str], metric: str) -> Group:
    """A group of runs that are repetitions of one another, sorted by their seed.

    Raises:
        UsageError: Two of them have the same seed.
    """
    mixed = differing(runs, {*free, *REPETITION})
    seen: dict[tuple, Run] = {}
    for run in runs:
        other = seen.setdefault(run.repetition, run)
        if other is not run:
            more = differing([other, run], {*free, *REPETITION})
            why = (
                f"they differ in {', '.join(more)}: group by that too" if more else "leave one out"
            )
            raise UsageError(
                f"{other.directory} and {run.directory}: both are "
                f"{describe_repetition(run.repetition)} of one group; {why}"
            )
    runs = sorted(runs, key=lambda run: [str(part).zfill(12) for part in run.repetition])
    return Group(name, runs, [run.score(metric) for run in runs], list(mixed))


def _settings(run: Run, names: Sequence[str]) -> str:
    values = {name: run.arguments.get(name) for name in names}
    return " ".join(f"{name}={value}" for name, value in values.items()) or "all runs"


def name_by_difference(groups: Sequence[list[Run]], free: Collection[str]) -> list[str]:
    """Names of groups given by hand: the arguments in which they differ, or their directories."""
    firsts = [runs[0] for runs in groups]
    names = [_settings(run, list(differing(firsts, {*free, *REPETITION}))) for run in firsts]
    if len(set(names)) == len(names):
        return names
    return [str(run.directory.parent) for run in firsts]


def pairs_of(groups: Sequence[Group], *, with_first: bool) -> list[tuple[Group, Group]]:
    """Which groups are compared: all with the first, or all with each other.

    Groups that were tested on different data sets are not compared with each other.
    """
    if with_first:
        return [(groups[0], group) for group in groups[1:]]

    def data(group: Group) -> str:
        name = str(group.runs[0].arguments.get("dataset"))
        return re.sub(r"-sub\d+$", "", name)

    return [(a, b) for a, b in combinations(groups, 2) if data(a) == data(b)]


def compare(pairs: Sequence[tuple[Group, Group]], *, paired: bool = True) -> list[Comparison]:
    """Compares groups, with one level of 5 % for all comparisons together.

    Args:
        pairs: The groups to compare.
        paired: Whether by pairs of the same seed; otherwise as independent samples.
    """
    found = [(_paired if paired else _unpaired)(a, b) for a, b in pairs]
    tested = [comparison for comparison in found if comparison.p is not None]
    for comparison, p in zip(
        tested, statistics.holm([comparison.p for comparison in tested]), strict=True
    ):
        comparison.p_holm = p
        if comparison.sd is not None:
            comparison.detectable = statistics.detectable(
                comparison.sd, comparison.n, tests=len(tested)
            )
    rows = [row for comparison in found for row in comparison.mcnemar]
    for row, p in zip(rows, statistics.holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p
    for comparison in found:
        comparison.verdict = verdict(comparison, len(tested))
    return found


def _paired(a: Group, b: Group) -> Comparison:
    by_repetition = [{run.repetition: i for i, run in enumerate(group.runs)} for group in (a, b)]
    shared = [repetition for repetition in by_repetition[0] if repetition in by_repetition[1]]
    pairs = [(by_repetition[0][one], by_repetition[1][one]) for one in shared]
    comparison = Comparison(a.name, b.name, paired=True, n=len(pairs))
    comparison.alone = [
        describe_repetition(one)
        for one in dict.fromkeys([*by_repetition[0], *by_repetition[1]])
        if one not in shared
    ]
    for one, (i, j) in zip(shared, pairs, strict=True):
        row = _mcnemar(a.runs[i], b.runs[j])
        if row:
            comparison.mcnemar.append({"repetition": describe_repetition(one), **row})
    if pairs:
        differences = np.array([b.scores[j] - a.scores[i] for i, j in pairs])
        comparison.difference = float(np.mean(differences))
    if len(pairs) > 1:
        comparison.sd = float(np.std(differences, ddof=1))
        comparison.low, comparison.high = map(float, statistics.t_interval(differences))
        comparison.p = float(statistics.sign_flip_p(differences))
    return comparison


def _unpaired(a: Group, b: Group) -> Comparison:
    n = min(len(a.scores), len(b.scores))
    comparison = Comparison(a.name, b.name, paired=False, n=n)
    comparison.difference = float(np.mean(b.scores) - np.mean(a.scores))
    if n > 1:
        comparison.low, comparison.high = statistics.welch_interval(a.scores, b.scores)
        comparison.p = statistics.unpaired_p(a.scores, b.scores)
    return comparison


def _mcnemar(a: Run, b: Run) -> dict | None:
    first, second = read_predictions(a.directory), read_predictions(b.directory)
    if not first or not second or first.keys() != second.keys():
        return None
    only_first = sum(first[path] and not second[path] for path in first)
    only_second = sum(second[path] and not first[path] for path in first)
    return {
        "images": len(first),
        "only_first": only_first,
        "only_second": only_second,
        "p": statistics.mcnemar_p(only_first, only_second),
    }


def verdict(comparison: Comparison, tests: int) -> str:
    """What a comparison says, in a sentence that can be quoted.

    Args:
        comparison: All of it but the sentence.
        tests: How many comparisons share the level.
    """
    n = comparison.n
    if comparison.difference is None:
        return (
            "the groups have no seed in common, so that nothing is paired; run the same seeds, or "
            "compare the means with --unpaired"
        )
    if comparison.p is None:
        return f"n = {n} cannot show it: one {'pair' if comparison.paired else 'run'} has no spread"
    points = f"{100 * comparison.difference:+.2f} points"
    interval = f"[{100 * comparison.low:+.2f}, {100 * comparison.high:+.2f}]"
    seen = f"{points}, 95 % interval {interval}, p = {comparison.p_holm:.3g}"
    level = LEVEL / tests
    if comparison.paired and statistics.smallest_p(n) > level:
        return (
            f"n = {n} cannot show it ({points}, 95 % interval {interval}): of {n} pairs the "
            f"sign-flip test's smallest p is {statistics.smallest_p(n):.3g}"
            f"{f', and {tests} comparisons share the level of {LEVEL}' if tests > 1 else ''}; "
            f"run at least {statistics.pairs_needed(level)} seeds of each"
        )
    if comparison.p_holm <= LEVEL:
        better = "better" if comparison.difference > 0 else "worse"
        return f"{comparison.second} is {better} than {comparison.first}: {seen}, n = {n}"
    could = ""
    if comparison.detectable is not None:
        could = f"; n = {n} would probably have seen {100 * comparison.detectable:.2f} points"
    return f"no difference is shown: {seen}{could}"
