"""Repeats the tables and figures of the paper, and prints its numbers beside ours.

    python reproduce_paper.py table2 --data_root DIR --output runs/paper --only Flowers
    python reproduce_paper.py figure3 --scale small --output runs/small --jobs 2

Interrupted, the same command goes on. docs/reproducing-the-paper.md says what differs.
"""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

from utils import UsageError, UserError, run_script  # first: it says in a line what fails to load

# isort: split
import datasets
from experiments import paper, processes, slots, tables
from training.flags import arguments
from training.flags.parser import Parser, number

ROOT = Path(__file__).resolve().parent
PROGRAM = [sys.executable, str(ROOT / "learn_classifier.py")]
TARGETS = ("table1", "table2", "table3", "figure1", "figure2", "figure3")
_CELLS = {"table2": paper.table_2, "table3": paper.table_3, "figure3": paper.figure_3}
# What chooses among these on two cores in an hour.
_SMALL_RATES = ("0.5", "0.1", "0.02")


def parse_arguments() -> argparse.Namespace:
    """The checked command line; what follows `--` is `extra`, for all trainings."""
    parser = Parser(
        description=__doc__.split("\n")[0],
        usage="reproduce_paper.py TARGET --output DIR [flags] [-- flags of learn_classifier.py]",
    )
    parser.add_argument("target", choices=TARGETS, help="what to repeat")
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="trainings, tables and figures go there"
    )
    parser.add_argument(
        "--data_root",
        action="append",
        default=[],
        metavar="DIR|NAME=DIR",
        help="where the data sets are, each in a folder; or one of them, may be repeated",
    )
    parser.add_argument(
        "--only", nargs="+", choices=paper.DATASETS, default=[], metavar="DATASET",
        help=f"these data sets alone, of {', '.join(paper.DATASETS)}",
    )  # fmt: skip
    parser.add_argument(
        "--losses", nargs="+", choices=tuple(paper.LOSSES), default=[], metavar="LOSS",
        help=f"these losses alone, of {', '.join(paper.LOSSES)}",
    )  # fmt: skip
    parser.add_argument(
        "--scale",
        choices=("full", "small"),
        default="full",
        help="small: figure3 on handwritten digits, about an hour on 2 CPU cores",
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="choose the learning rate from the paper's whole grid instead of taking the published",
    )
    parser.add_argument(
        "--validation_fraction",
        metavar="SHARE",
        help="choose the rate on validation images, then train on all training images and look at "
        "the test images once (default: the published protocol, on the test images; small: 0.3)",
    )
    parser.add_argument(
        "--seeds",
        type=number(int, least=1),
        metavar="N",
        help="trainings of every cell (default: 1, as published; figure3: 3; small: 5)",
    )
    parser.add_argument(
        "--jobs", type=number(int, least=1), default=1, metavar="N", help="trainings at a time"
    )
    parser.add_argument("--dry_run", action="store_true", help="print the commands only")
    own, extra = sys.argv[1:], []
    if "--" in own:
        own, extra = own[: own.index("--")], own[own.index("--") + 1 :]
    args = parser.parse_args(own)
    args.extra = tuple(extra)
    if args.scale == "small" and args.target != "figure3":
        raise UsageError(f"--scale small: is a figure3, not a {args.target}")
    if os.path.exists(args.output) and not os.path.isdir(args.output):
        raise UsageError(f"--output {args.output}: is a file; give a directory")
    if args.validation_fraction and not (args.tune or args.scale == "small"):
        raise UsageError("--validation_fraction: chooses the learning rate, which --tune asks for")
    return args


def protocol_of(args: argparse.Namespace) -> paper.Protocol:
    """How the learning rates are chosen and the trainings judged."""
    small = args.scale == "small"
    rates = paper.GRID if args.tune else (_SMALL_RATES if small else ())
    seeds = args.seeds or (5 if small else 3 if args.target == "figure3" else 1)
    validation = args.validation_fraction or ("0.3" if small else None)
    return paper.Protocol(rates, seeds, validation, args.extra)


def find_roots(names: list[str], given: list[str]) -> dict[str, str | None]:
    """The data roots of those data sets that are there.

    Args:
        names: Data sets.
        given: Values of `--data_root`.

    Raises:
        UsageError: A data set that was named with its directory is not there.
    """
    own = dict(value.split("=", 1) for value in given if value.split("=", 1)[0] in names)
    common = [value for value in given if value.split("=", 1)[0] not in paper.DATASETS]
    found: dict[str, str | None] = {}
    for name in names:
        if name in own:
            datasets.check_dataset(name, own[name])
            found[name] = own[name]
            continue
        places = [None] if name == "digits" else []
        for directory in common:
            places += [directory, *(os.path.join(directory, n) for n in (name, name.lower()))]
        for place in places:
            try:
                datasets.check_dataset(name, place)
            except UsageError:
                continue
            found[name] = place
            break
    return found


def embedding_of_nab(root: str, output: Path) -> str:
    """The class embeddings of NAB's own hierarchy, computed once."""
    path = output / "nab.npz"
    if not path.exists():
        command = [
            *(sys.executable, str(ROOT / "compute_class_embedding.py"), "--is_a"),
            *("--hierarchy", os.path.join(root, "hierarchy.txt"), "--out", str(path)),
        ]
        if subprocess.run(command).returncode:
            raise UserError(f"{root}/hierarchy.txt: no class embeddings could be computed from it")
    return str(path)


def check_same_setup(output: Path, extra: tuple[str, ...]) -> None:
    """Refuses a directory whose trainings had other extra flags.

    Raises:
        UsageError: They had.
    """
    path = output / "extra.txt"
    words = shlex.join(extra) + "\n"
    if path.exists() and path.read_text() != words:
        before = path.read_text().strip() or "no flags"
        raise UsageError(
            f"--output {output}: its trainings had {before} after --; give the same, or another "
            "directory"
        )
    tables.write_text(path, words)


def train_cells(args: argparse.Namespace, output: Path, program: list[str]) -> None:
    """Repeats table 2, table 3 or figure 3, as far as its data are there."""
    from experiments import paper_runs

    protocol = protocol_of(args)
    make = paper.figure_3_small if args.scale == "small" else _CELLS[args.target]
    cells = paper.choose(make(), args.only, args.losses)
    names = list(dict.fromkeys(cell.dataset for cell in cells))
    if not names:
        raise UsageError(f"{args.target}: --only and --losses leave nothing of it")
    roots = find_roots(names, args.data_root)
    missing = [name for name in names if name not in roots]
    if not roots:
        raise UsageError(
            f"--data_root: none of {', '.join(missing)} is there; give the directory that holds "
            "them, or NAME=DIR for each"
        )
    cells = [cell for cell in cells if cell.dataset in roots]
    files = {word: str(ROOT / word) for cell in cells for word in cell.argv if ".npz" in word}
    if any("NAB" in cell.argv for cell in cells):
        files["NAB"] = str(output / "nab.npz")
        if not args.dry_run:
            files["NAB"] = embedding_of_nab(roots["NAB-large"], output)
    if not args.dry_run:
        check_same_setup(output, args.extra)
    study = paper_runs.Study(output, cells, protocol, roots, files)
    if args.dry_run:
        for run in [*study.searches(), *(run for cell in cells for run in study.finals(cell))]:
            argv = [*run.argv, *processes.own_files(run.directory)]
            print(shlex.join(["python", "learn_classifier.py", *argv]))
        if protocol.rates:
            print(
                f"# then {protocol.seeds} trainings of each of {len(cells)} cells at its best rate"
            )
        return
    for cell in cells[:1]:  # one wrong argument is wrong everywhere
        run = (study.searches() or study.finals(cell))[0]
        parsed = arguments.training_parser().parse_args(list(run.argv))
        arguments.check_training_arguments(parsed)
    gpus = slots.visible_gpus()
    pool = processes.Pool(slots.divide(args.jobs, None, gpus), program)
    try:
        study.run(pool)
    finally:
        outcomes = study.outcomes()
        report(args, output, outcomes, protocol, missing)


def report(args, output: Path, outcomes, protocol: paper.Protocol, missing: list[str]) -> None:
    """Prints the table of what is known, and writes it as CSV and, for figure 3, as SVG."""
    from experiments import paper_runs

    name = args.target if args.scale == "full" else f"{args.target}_small"
    lines = [tables.text(paper_runs.table(outcomes)), ""]
    lines.append(f"test accuracy in %, mean ± standard deviation over n seeds; {protocol.words}")
    lines.append(paper_runs.progress(outcomes, protocol.seeds))
    if args.extra:
        lines.append(f"not the paper's set-up: {shlex.join(args.extra)}")
    if missing:
        lines.append(f"not there, so left out: {', '.join(missing)}")
    print("\n" + "\n".join(lines), flush=True)
    rows = paper_runs.rows_of(outcomes, protocol)
    tables.write_csv(output / f"{name}.csv", rows)
    if args.target == "figure3" and any(outcome.scores for outcome in outcomes):
        paper_runs.draw_sizes(output / f"{name}.svg", outcomes)


def count_images(args: argparse.Namespace, output: Path) -> None:
    """Repeats table 1 from the data sets that are there."""
    import numpy as np

    names = [name for name in paper.DATASETS if not args.only or name in args.only]
    roots = find_roots(names, args.data_root)
    if not roots:
        raise UsageError(
            f"--data_root: none of {', '.join(names)} is there; give the directory that holds them"
        )
    rows = []
    for name in names:
        classes, train, test, per_class = paper.TABLE_1[name]
        row = {"data set": name}
        counts = None
        if name in roots:
            dataset = datasets.load_dataset(
                name, roots[name], cache="none", check_files=False, splits=("test",)
            )
            counts = np.bincount(dataset.train.labels, minlength=dataset.num_classes)
        for title, value, published in (
            ("classes", counts is not None and dataset.num_classes, classes),
            ("training images", counts is not None and len(dataset.train), train),
            ("test images", counts is not None and len(dataset.test), test),
            ("per class", counts is not None and _span(counts), per_class),
        ):
            row[title] = f"{value if counts is not None else '-'} | paper {published}"
        rows.append(row)
    print(tables.text(rows))
    tables.write_csv(output / "table1.csv", rows)


def _span(counts) -> str:
    low, high = int(counts.min()), int(counts.max())
    return str(low) if low == high else f"{low}-{high}"


def draw_taxonomies(output: Path) -> None:
    """Repeats figure 2: the taxonomies of CUB's classes."""
    from embeddings.drawing import plot
    from embeddings.hierarchy_files import read_hierarchy

    for name, levels, embedding, *_ in paper.TAXONOMIES:
        if embedding:
            hierarchy = read_hierarchy(ROOT / embedding.replace(".npz", ".txt"))
            path = output / f"figure2_{name.lower()}.svg"
            plot(hierarchy, path)
            print(f"{name}: {levels} levels, {path}")


def main(program: list[str] = PROGRAM) -> None:
    args = parse_arguments()
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    if args.target == "table1":
        count_images(args, output)
    elif args.target == "figure1":
        from experiments.paper_runs import draw_surfaces

        draw_surfaces(output / "figure1.svg")
        print(output / "figure1.svg")
    elif args.target == "figure2":
        draw_taxonomies(output)
    else:
        with processes.exclusive(
            output / "driver.lock",
            f"--output {output}: another reproduce_paper.py is at work there; wait for it",
        ):
            train_cells(args, output, program)


if __name__ == "__main__":
    run_script(main)
