"""Evaluates learned features by image retrieval: every image in turn looks for the others.

    python evaluate_retrieval.py --features F.npz --hierarchy H [--is_a] [--str_ids] [--norm]

F.npz is what `--feature_dump` wrote. Mean average precision, hierarchical precision at k and
mAHP@250 are printed for both class similarities, 1 − height(lcs) / height(root) and Wu and
Palmer's. `--features` may be given several times, to compare.
"""

import argparse
import csv
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import utils  # first: it says in a line what fails to load

# isort: split
import numpy as np

import foreign_files
from training.flags import paths
from training.flags.declaration import Flag
from training.flags.parser import Parser, number
from training.reporting.flags import HIERARCHY_FORMAT


@dataclass(frozen=True)
class Features:
    """What a feature dump holds.

    Attributes:
        features: float32 `(images, dimensions)`.
        labels: Index of each image's class, int64 `(images,)`.
        class_ids: The id of each class.
    """

    features: np.ndarray
    labels: np.ndarray
    class_ids: list[int] | list[str]


def read_features(path: str) -> Features:
    """Reads a feature dump.

    Raises:
        UserError: The file cannot be read, or its arrays do not fit together.
    """
    arrays = foreign_files.load_npz(path, ["features", "labels", "class_ids"])
    features, labels, class_ids = (arrays[name] for name in ("features", "labels", "class_ids"))
    if features.ndim != 2 or features.dtype.kind != "f" or labels.shape != features.shape[:1]:
        raise utils.UserError(f"{path}: expected features (N, D) and one label for each of them")
    if labels.dtype.kind not in "iu" or class_ids.ndim != 1 or class_ids.dtype.kind not in "iuU":
        raise utils.UserError(f"{path}: expected integer labels, and class ids as numbers or text")
    if labels.size and not (labels.min() >= 0 and labels.max() < len(class_ids)):
        raise utils.UserError(f"{path}: labels beyond its {len(class_ids)} classes")
    return Features(features, labels.astype(np.int64), class_ids.tolist())


_PLOTS = (".png", ".svg", ".pdf")

FLAGS = (
    Flag(
        "--features",
        action="append",
        required=True,
        metavar="F.npz",
        help="a feature dump; may be given several times",
        synonyms=("--feat",),
    ),
    Flag(
        "--label",
        action="append",
        metavar="TEXT",
        help="what a feature dump is called in tables and plots, one for each --features; by "
        "default its path",
    ),
    Flag(
        "--hierarchy",
        required=True,
        metavar="H",
        help="`parent child` lines, or a tree by indentation",
    ),
    *HIERARCHY_FORMAT,
    Flag("--norm", action="store_true", help="rank by cosine similarity, not Euclidean distance"),
    Flag(
        "--clip_ahp",
        type=number(int, least=2),
        default=250,
        metavar="K",
        help="mAHP is the area under hierarchical precision at 1 to K images",
    ),
    Flag("--csv", metavar="FILE.csv", help="write the hierarchical precision at each k"),
    Flag(
        "--plot",
        metavar="FILE",
        help=f"draw the precision by the recall ({', '.join(_PLOTS)})",
    ),
)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The checked command line.

    Raises:
        UsageError: A file is missing or cannot be written, or labels do not fit.
    """
    parser = Parser(description=__doc__)
    for flag in FLAGS:
        flag.add_to(parser)
    args = parser.parse_args(argv)
    for path in args.features:
        paths.check_input_file("--features", path, ".npz")
    paths.check_input_file("--hierarchy", args.hierarchy)
    paths.check_output_file("--csv", args.csv, ".csv")
    paths.check_output_file("--plot", args.plot, _PLOTS)
    args.label = args.label or args.features
    if len(args.label) != len(args.features):
        raise utils.UsageError(
            f"--label: there are {len(args.label)} for {len(args.features)} times --features; "
            "give one for each"
        )
    if len(set(args.label)) < len(args.label):
        raise utils.UsageError("--label: two are the same; give each --features one of its own")
    return args


def evaluate(args: argparse.Namespace) -> dict:
    """What retrieval with each feature dump gives (`embeddings.retrieval.Retrieval`), by label.

    Raises:
        UserError: A file is damaged, or classes are not in the hierarchy.
    """
    from embeddings.hierarchy_files import read_hierarchy
    from embeddings.retrieval import retrieve

    hierarchy = read_hierarchy(args.hierarchy, is_a=args.is_a, str_ids=args.str_ids)
    results = {}
    for label, path in zip(args.label, args.features, strict=True):
        dump = read_features(path)
        class_ids = list(map(str, dump.class_ids)) if args.str_ids else dump.class_ids
        try:
            similarities = {
                "LCS height": 1 - hierarchy.dissimilarity(class_ids),
                "WUP": hierarchy.wu_palmer(class_ids),
            }
        except utils.UserError as error:
            raise utils.UserError(f"{args.hierarchy}: {error}") from None
        options = {"norm": args.norm, "clip_ahp": args.clip_ahp}
        try:
            results[label] = retrieve(dump.features, dump.labels, similarities, **options)
        except utils.UserError as error:
            raise utils.UserError(f"{path}: {error}") from None
    return results


def print_scores(results: dict) -> None:
    """A line per score, with a column for each feature dump if there are several."""
    labels = list(map(utils.printable, results))
    columns = [list(result.scores.values()) for result in results.values()]
    names = list(next(iter(results.values())).scores)
    if len(labels) == 1:
        for name, value in zip(names, columns[0], strict=True):
            print(f"{name}: {value:.4f}")
        return
    first = max(map(len, names))
    widths = [max(6, len(label)) for label in labels]
    print(" " * first, *(f"{label:>6}" for label in labels), sep="  ")
    for name, *values in zip(names, *columns, strict=True):
        cells = (f"{value:{width}.4f}" for value, width in zip(values, widths, strict=True))
        print(f"{name:{first}}", *cells, sep="  ")


def write_csv(path: str, results: dict) -> None:
    """Writes the hierarchical precision at each k: a column for each dump and class similarity."""
    columns = {
        f"{label} ({name})": curve
        for label, result in results.items()
        for name, curve in result.hierarchical_precision.items()
    }
    with utils.atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["k", *columns])
        rows = itertools.zip_longest(*columns.values(), fillvalue="")
        writer.writerows([k, *row] for k, row in enumerate(rows, start=1))


def write_plot(path: str, results: dict) -> None:
    """Draws the precision by the recall, a line for each feature dump."""
    from matplotlib.figure import Figure

    from embeddings.retrieval import RECALLS

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    lines = [axes.plot(RECALLS, result.precision)[0] for result in results.values()]
    # Escaped, as matplotlib reads formulas between dollar signs.
    axes.legend(lines, [utils.printable(label).replace("$", r"\$") for label in results])
    with utils.atomic_path(path) as temporary:
        figure.savefig(temporary)


def main() -> int:
    args = parse_arguments()
    results = evaluate(args)
    print_scores(results)
    if args.csv:
        write_csv(args.csv, results)
    if args.plot:
        write_plot(args.plot, results)
    return 0


if __name__ == "__main__":
    utils.run_script(main)
