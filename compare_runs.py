"""Compares finished runs: means with their uncertainty, and which differences are shown.

    python compare_runs.py runs/a/* --vs runs/b/*
    python compare_runs.py runs --by loss,sgdr_max_lr --json comparison.json --plot comparison.svg

Runs that differ in nothing but the seed are a group. docs/experiments.md explains the numbers.
"""

import argparse

from utils import UsageError, run_script  # first: it says in a line what fails to load

# isort: split
from experiments import comparing, comparison_tables, tables
from experiments.runs import Run, find_runs
from training.flags import paths
from training.flags.arguments import DEFAULTS, FLAGS
from training.flags.parser import Parser

# Where things are and how fast they are read changes no score.
WITHOUT_EFFECT = {flag.dest for flag in FLAGS if flag.on_resume == "free"} - {"epochs"}
WITHOUT_EFFECT |= {"top_k_acc"}


def parse_arguments() -> argparse.Namespace:
    """The checked command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "runs", nargs="+", metavar="DIR", help="directories of runs, or directories that hold such"
    )
    group = parser.add_argument_group("what is compared")
    group.add_argument(
        "--vs",
        nargs="+",
        action="append",
        default=[],
        metavar="DIR",
        help="the runs of a second group, which is compared with the first; may be repeated",
    )
    group.add_argument(
        "--by",
        type=lambda text: text.split(","),
        default=[],
        metavar="FLAG,…",
        help="group by these arguments alone (without --vs and --by: by all but the seed)",
    )
    group.add_argument(
        "--metric",
        default="acc",
        metavar="NAME",
        help="score of the test images: acc, average_acc, … of the final weights; best: acc of the "
        "best epoch, which the published protocol selects on the test images",
    )
    group.add_argument(
        "--unpaired",
        action="store_true",
        help="compare the groups' means, not the runs of equal seeds",
    )
    output = parser.add_argument_group("output")
    for suffix, what in (
        ("csv", "one row per comparison"),
        ("json", "everything, with every run's score"),
        ("latex", "both tables, for the package booktabs"),
    ):
        output.add_argument(f"--{suffix}", metavar="FILE", help=what)
    output.add_argument(
        "--plot", metavar="FILE.svg", help="curves with bands, and all runs' scores"
    )
    args = parser.parse_args()
    if args.vs and args.by:
        raise UsageError("--by: the groups are given by --vs already; leave one of the two out")
    for flag, suffix in (("csv", ".csv"), ("json", ".json"), ("latex", ".tex"), ("plot", ".svg")):
        paths.check_output_file(f"--{flag}", getattr(args, flag), suffix)
    return args


def find(paths: list[str]) -> tuple[list[Run], list[str]]:
    """The finished runs below paths, and notes on what was left out."""
    runs, unfinished = find_runs(paths)
    if not runs:
        raise UsageError(f"{' '.join(paths[:3])}: no finished run (result.json) is there")
    for run in runs:  # of versions before a flag was added, which did what is its default
        defaults = DEFAULTS | {"split_seed": run.arguments["seed"]}
        run.result["arguments"] = defaults | run.arguments
    return runs, [f"left out, as it is not finished: {directory}" for directory in unfinished]


def make_groups(args: argparse.Namespace) -> tuple[list[comparing.Group], list[str]]:
    """The groups to compare, and notes about them."""
    runs, notes = find(args.runs)
    if not args.vs:
        groups = comparing.group_runs(runs, WITHOUT_EFFECT, args.by, args.metric)
    else:
        parts = [runs]
        for paths in args.vs:
            others, more = find(paths)
            parts.append(others)
            notes += more
        names = comparing.name_by_difference(parts, WITHOUT_EFFECT)
        groups = [
            comparing.make_group(part, name, WITHOUT_EFFECT, args.metric)
            for part, name in zip(parts, names, strict=True)
        ]
    notes += [f"{g.name}: its runs also differ in {', '.join(g.mixed)}" for g in groups if g.mixed]
    if len({group.selected_on for group in groups}) > 1:
        notes.append("the groups were not selected on the same images, which favours those on test")
    if args.metric == "best":
        notes.append("best: the best epoch was selected on the test images (the paper's protocol)")
    return groups, notes


def main() -> None:
    args = parse_arguments()
    groups, notes = make_groups(args)
    pairs = comparing.pairs_of(groups, with_first=bool(args.vs))
    comparisons = comparing.compare(pairs, paired=not args.unpaired)

    group_rows = [comparison_tables.group_row(group) for group in groups]
    rows = [comparison_tables.comparison_row(comparison) for comparison in comparisons]
    single = comparison_tables.mcnemar_rows(comparisons)
    print(f"{args.metric} of the test images, %\n\n{tables.text(group_rows)}")
    for part in filter(None, (rows, single)):
        print(f"\n{tables.text(part)}")
    for comparison in comparisons:
        print(f"\n{comparison.second} against {comparison.first}: {comparison.verdict}.")
        if comparison.paired and comparison.alone:
            notes.append(f"not paired: {'; '.join(comparison.alone)}")
    if notes:
        print("\n" + "\n".join(f"note: {note}" for note in dict.fromkeys(notes)))

    if args.csv:
        tables.write_csv(args.csv, comparison_tables.csv_rows(groups, comparisons))
    if args.json:
        content = comparison_tables.as_json(args.metric, groups, comparisons, notes)
        tables.write_json(args.json, content)
    if args.latex:
        parts = filter(None, (group_rows, rows))
        tables.write_text(args.latex, "\n".join(tables.latex(part) for part in parts))
    if args.plot:
        from experiments import figures

        figures.draw_groups(args.plot, groups)


if __name__ == "__main__":
    run_script(main)
