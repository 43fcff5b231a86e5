"""Searches for the best settings of a training: many trials, each a run of learn_classifier.py.

    python sweep.py runs/cub --trials 40 --tune sgdr_max_lr log 1e-4 1 --tune batch_size of 16 32 \\
        -- --dataset CUB --data_root DIR --architecture resnet-50 --validation_fraction 0.3
    python sweep.py runs/cub              # goes on, or shows what there is
    python sweep.py runs/cub --final 5    # the best settings on all training images, 5 seeds

Killed at any moment, the same command goes on. docs/experiments.md explains it.
"""

import argparse
import sys
from pathlib import Path

from utils import UserError, run_script  # first: it says in a line what fails to load

# isort: split
from experiments import processes, slots, space, sweep_plan
from training.flags import arguments
from training.flags.parser import Parser, number

PROGRAM = [sys.executable, str(Path(__file__).with_name("learn_classifier.py"))]


def parse_arguments() -> argparse.Namespace:
    """The checked command line; its `plan` is the sweep's, written to its directory."""
    parser = Parser(
        description=__doc__.split("\n")[0],
        usage="sweep.py DIR [flags of the sweep] [-- flags of learn_classifier.py]",
    )
    parser.add_argument("directory", metavar="DIR", help="the sweep's own directory")
    group = parser.add_argument_group("search")
    group.add_argument(
        "--tune",
        action="append",
        nargs="+",
        metavar="NAME …",
        help="a flag to vary: NAME log LO HI, NAME lin LO HI, NAME int LO HI or NAME of VALUE …",
    )
    group.add_argument(
        "--trials", type=number(int, least=1), metavar="N", help="how many in all (default: 20)"
    )
    samplers = group.add_mutually_exclusive_group()
    samplers.add_argument(
        "--sampler", choices=("tpe", "random"), help="how settings are drawn (default: tpe)"
    )
    samplers.add_argument(
        "--grid",
        action="store_true",
        help="every combination of the lists; without --tune: the 8 values of --sgdr_max_lr that "
        "the paper tried",
    )
    group.add_argument(
        "--seed", type=number(int, least=0, below=2**31), metavar="N", help="draws the settings"
    )
    group = parser.add_argument_group("judging")
    group.add_argument(
        "--metric", metavar="NAME", help="column of history.csv (default: validation accuracy)"
    )
    group.add_argument(
        "--last",
        type=number(int, least=1),
        metavar="N",
        help="a trial's score is the mean of its last N epochs (default: 5)",
    )
    group.add_argument(
        "--select_on_test",
        action="store_true",
        default=None,
        help="choose by the test images, as the paper did; every table says so",
    )
    group.add_argument(
        "--grace",
        type=number(int, least=1),
        metavar="EPOCHS",
        help="end bad trials early: first after so many epochs, then after each multiple of it by "
        "1/KEEP (default: none is ended)",
    )
    group.add_argument(
        "--keep",
        type=number(above=0, most=0.5),
        metavar="SHARE",
        help="of the trials go on each time: 0.5, a third, … (default: 0.5)",
    )
    group = parser.add_argument_group("machine")
    group.add_argument(
        "--jobs",
        type=number(int, least=1),
        metavar="N",
        help="trials at a time, which share cores and GPUs in equal parts (default: 1)",
    )
    group.add_argument(
        "--gpus_per_trial",
        type=number(above=0),
        metavar="N",
        help="GPUs for each; 0.5 packs two on one (default: all, divided by --jobs)",
    )
    group.add_argument(
        "--storage",
        metavar="URL",
        help="of a PostgreSQL or MySQL server, where drivers on several machines share a study",
    )
    group.add_argument(
        "--study", metavar="NAME", help="its name there (default: the directory's name)"
    )
    group = parser.add_argument_group("result")
    group.add_argument(
        "--final",
        type=number(int, least=1),
        metavar="N",
        help="then train with the best settings on all training images, with N seeds",
    )
    own, base = sys.argv[1:], []
    if "--" in own:
        own, base = own[: own.index("--")], own[own.index("--") + 1 :]
    args = parser.parse_args(own)
    args.plan = _plan(args, base)
    return args


def _plan(args: argparse.Namespace, base: list[str]) -> sweep_plan.Plan:
    directory = Path(args.directory)
    new = not sweep_plan.path_of(directory).exists()
    tune = [space.parse_range(words).words for words in args.tune or []]
    if args.grid and not tune and new:
        tune = [list(space.PAPER_GRID)]
    given = {
        "base": tuple(base) or None,
        "tune": tuple(map(tuple, tune)) or None,
        "sampler": "grid" if args.grid else args.sampler,
        "study": args.study or (directory.resolve().name if new and args.storage else None),
    }
    for name in (
        *("trials", "seed", "metric", "last", "select_on_test", "grace", "keep"),
        *("jobs", "gpus_per_trial", "storage"),
    ):
        given[name] = getattr(args, name)
    given = {name: value for name, value in given.items() if value is not None}
    return sweep_plan.settle(directory, given, check_training)


def check_training(argv: list[str]) -> None:
    """Raises a `UsageError` if `learn_classifier.py` would refuse these arguments."""
    arguments.check_training_arguments(arguments.training_parser().parse_args(argv))


def main(program: list[str] = PROGRAM) -> None:
    args = parse_arguments()
    directory, plan = Path(args.directory), args.plan
    with processes.exclusive(
        directory / "driver.lock",
        f"{directory}: another sweep.py is at work there; wait for it or end it first",
    ):
        run(args, directory, plan, program)


def run(args: argparse.Namespace, directory: Path, plan: sweep_plan.Plan, program: list[str]):
    """Runs what is missing of a sweep, shows it, and trains the final runs if asked for."""
    parts = slots.divide(plan.jobs, plan.gpus_per_trial, slots.visible_gpus())
    pool = processes.Pool(parts, program)

    from experiments import finals, sweep_report
    from experiments.sweeping import Sweep

    sweep = Sweep(directory, plan, pool)
    live = sweep_report.Live()
    try:
        sweep.run(live)
    finally:
        live.clear()
        print(sweep_report.write(sweep), flush=True)
    best = sweep.best(sweep.trials())
    if best is None:
        raise UserError(f"{directory}: no trial was trained to its end")
    if args.final:
        print("\n" + finals.train(directory, plan, best, args.final, pool))


if __name__ == "__main__":
    run_script(main)
