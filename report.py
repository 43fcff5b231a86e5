"""Writes a report of a run: how good it is, what it gets wrong, and whether to believe it.

    python report.py runs/cosine --out report.html

makes one HTML file from the directory of --output or --log_dir, its model and its images. Several
directories are runs of one command with different seeds. docs/report.md says what is in it.
"""

import argparse
import os
import sys

from utils import UsageError, UserError, run_script, say  # first: it says what fails to load

# isort: split
from training.devices import flags as devices
from training.flags import paths
from training.flags.declaration import Flag, FlagGroup, add_groups
from training.flags.parser import Parser
from training.reporting import flags as reporting

GROUPS = (
    FlagGroup(
        "report",
        (
            Flag(
                "runs",
                nargs="+",
                metavar="RUN_DIR",
                help="a directory of --output or --log_dir, or one that holds such; several are "
                "runs that differ in their seed",
            ),
            Flag(
                "--out",
                metavar="FILE.html",
                help="the report; needed for several directories",
                default_text="report.html in the directory",
            ),
            Flag(
                "--model",
                metavar="M.keras",
                help="the run's dumped model, where it is not in the directory",
            ),
            Flag(
                "--data_root",
                metavar="DIR",
                help="where the images are, if not where they were",
            ),
            Flag(
                "--temperature",
                action="store_true",
                help="fit the temperature that makes probabilities believable on the run's "
                "validation images, and write it into its model",
            ),
            Flag(
                "--hierarchy",
                metavar="FILE",
                help="class hierarchy: also report how far off confusions are",
            ),
            *reporting.HIERARCHY_FORMAT,
        ),
    ),
)


def parse_arguments() -> argparse.Namespace:
    """The checked command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    add_groups(parser, GROUPS)
    args = parser.parse_args()
    if args.out is None:
        if len(args.runs) > 1:
            raise UsageError(
                "--out is missing: a report of several directories needs a file of its own; give "
                "--out FILE.html"
            )
        args.out = os.path.join(args.runs[0], "report.html")
    paths.check_output_file("--out", args.out, ".html", made_by_run=args.runs[:1])
    if args.model:
        paths.check_input_file("--model", args.model, ".keras")
    if args.hierarchy:
        paths.check_input_file("--hierarchy", args.hierarchy)
    devices.backend()
    return args


def main() -> None:
    args = parse_arguments()

    from experiments.runs import read_history
    from reports import material as materials

    runs = materials.read_runs(args.runs)
    if len(runs) > 1 and args.model:
        raise UsageError("--model: is that of one run, but there are several; give one directory")
    histories = [read_history(run.directory) for run in runs]
    resolved = materials.resolved_arguments(runs[0], args.data_root)
    material = materials.Material(runs, histories, resolved)
    materials.load_images(material, required=bool(args.data_root or args.temperature))
    path = materials.load_model(material, args.model)
    if args.temperature:
        if path is None:
            raise UserError(f"--temperature: {runs[0].directory} holds no model; give --model")
        materials.fit_temperature(material, path)
        say(material.temperature)
    materials.score(material)
    if args.hierarchy:
        materials.add_hierarchy(material, args.hierarchy, is_a=args.is_a, str_ids=args.str_ids)

    from reports import writing

    for text in material.missing:
        say(f"warning: {text}", file=sys.stderr)
    writing.write(material, args.out)
    say(f"{args.out}: written")


if __name__ == "__main__":
    run_script(main)
