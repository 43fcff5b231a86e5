"""Labels images with a model that learn_classifier.py dumped.

    python predict.py --model M.keras photo.jpg more_photos/

prints a line per image: its path, then the best classes with their scores, which are probabilities
or, for a model without a softmax classifier, similarities to the class embeddings. Of a folder it
takes all images anywhere below it; `-` stands for the paths in the lines of standard input. An
image that cannot be read is a line on stderr, and status 1 at the end.
"""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from utils import (  # first: it says in a line what fails to load
    UsageError,
    UserError,
    atomic_path,
    one_line,
    run_script,
    say,
)

# isort: split
from deployment.loading import SUFFIXES
from training.devices import flags as devices
from training.flags import paths
from training.flags.declaration import Flag
from training.flags.parser import Parser, number
from training.reporting import flags as reporting
from training.reporting.terminal import duration, write_over

STDIN = "-"
FLAGS = (
    reporting.LABELLING_MODELS,
    Flag(
        "--top_k",
        type=number(int, least=1),
        metavar="K",
        help="how many classes to print",
        default_text="1; with --csv or --json 2",
    ),
    Flag(
        "--least",
        type=number(),
        metavar="SCORE",
        help="answer `unknown` first where the best score is below this",
    ),
    Flag("--csv", action="store_true", help="a table with a header: path, class, score, …"),
    Flag("--json", action="store_true", help="a list of objects, one a line"),
    Flag(
        "--out",
        metavar="FILE",
        help="write to this file, whole or not at all, instead of printing",
        synonyms=("--output",),
    ),
    reporting.BATCH_SIZE,
    reporting.TTA,
    Flag(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="image files, or folders of them; - reads their paths from standard input, one a line",
    ),
)


def parse_arguments() -> argparse.Namespace:
    """The checked command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    for flag in FLAGS:
        flag.add_to(parser)
    args = parser.parse_args()
    for path in args.model:
        paths.check_input_file("--model", path, SUFFIXES)
    devices.backend()
    if args.csv and args.json:
        raise UsageError("--csv and --json: the output has one form; give one of them")
    args.top_k = args.top_k or (2 if args.csv or args.json else 1)
    suffix = ".csv" if args.csv else ".json" if args.json else ""
    paths.check_output_file("--out", args.out, suffix)
    if args.images.count(STDIN) > 1:
        raise UsageError("-: standard input can be read once only")
    for path in args.images:
        if path != STDIN and not os.path.exists(path):
            raise UsageError(f"{path}: there is no such file or folder")
    return args


def list_images(paths: Iterable[str]) -> list[str]:
    """The files themselves, of folders all images below them, sorted, and for `-` those of stdin.

    What is wrong with a line of standard input, reading it says.

    Raises:
        UsageError: A folder has no images, or there are no paths on standard input.
    """
    from datasets.sources import image_lists

    images = []
    for path in paths:
        if path == STDIN:
            lines = _lines_of_stdin()
            found = [image for line in lines for image in _of_folder(line) or [line]]
        elif os.path.isdir(path):
            found = _of_folder(path)
        else:
            found = [path]
        if not found:
            extensions = ", ".join(sorted(image_lists.EXTENSIONS))
            raise UsageError(f"{path}: a folder without images ({extensions})")
        images += found
    return images


def _of_folder(path: str) -> list[str]:
    """The images below a folder; none of what is no folder."""
    from datasets.sources import folder

    return folder.list_images(Path(path)) if os.path.isdir(path) else []


def _lines_of_stdin() -> list[str]:
    lines = sys.stdin.buffer.read().splitlines()
    if not any(lines):
        raise UsageError("-: there are no paths on standard input, which are expected one a line")
    return [os.fsdecode(line) for line in lines if line]


class Labelling:
    """The images with their labels, as they come; those that cannot be read are lines on stderr.

    Attributes:
        failed: How many could not be read so far.
    """

    def __init__(self, models: Sequence, images: Sequence[str], args: argparse.Namespace):
        self.models, self.images, self.args = models, images, args
        self.failed = 0

    def __iter__(self) -> Iterator[tuple[str, list]]:
        import scoring
        from deployment.labels import best_labels

        # The labels themselves show how far it is where they go to the terminal.
        progress = sys.stderr.isatty() and (self.args.out or not sys.stdout.isatty())
        started = shown = time.monotonic()
        scored = scoring.score_files(
            self.models, self.images, self.args.batch_size, mirrored=self.args.tta == "flip"
        )
        for done, (path, scores) in enumerate(scored, 1):
            if isinstance(scores, UserError):
                if progress:
                    write_over("", sys.stderr)
                print(f"predict.py: error: {one_line(scores)}", file=sys.stderr)
                self.failed += 1
                continue
            names = self.models[0].class_names
            yield path, best_labels(scores, names, self.args.top_k, self.args.least)
            if progress and (now := time.monotonic()) > shown + 0.2:
                shown, left = now, (now - started) / done * (len(self.images) - done)
                text = f"{done} of {len(self.images)} images, {duration(left)} left"
                write_over(text, sys.stderr)
        if progress:
            write_over("", sys.stderr)


@contextlib.contextmanager
def opened(path: str | None):
    """The file to write to, which appears when it is whole; standard output without a path."""
    if path is None:
        yield sys.stdout
        return
    with (
        atomic_path(path) as temporary,
        # Names of files need not be UTF-8.
        open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file,
    ):
        yield file


def main() -> int:
    args = parse_arguments()
    images = list_images(args.images)

    from deployment import labels, loading

    models = loading.load_models(args.model)
    rows = Labelling(models, images, args)
    with opened(args.out) as file:
        if args.csv:
            labels.write_csv(rows, file, min(args.top_k, len(models[0].class_names)))
        elif args.json:
            labels.write_json(rows, file)
        else:
            labels.write_lines(rows, file)
    if args.out:
        say(f"{len(images) - rows.failed} of {len(images)} images: {args.out}", file=sys.stderr)
    return 1 if rows.failed else 0


if __name__ == "__main__":
    run_script(main)
