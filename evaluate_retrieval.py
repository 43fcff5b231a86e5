"""Evaluates learned features by image retrieval: every image in turn looks for the others.

    python evaluate_retrieval.py --features F.npz --hierarchy H [--is_a] [--str_ids] [--norm]

F.npz is what `--feature_dump` wrote. Mean average precision, hierarchical precision at k and
mAHP@250 are printed for both class similarities, 1 − height(lcs) / height(root) and Wu and
Palmer's.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import foreign_files
import utils
from training.flags import paths
from training.flags.declaration import Flag
from training.flags.parser import Parser
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


FLAGS = (
    Flag(
        "--features",
        required=True,
        metavar="F",
        help="the feature dump, .npz",
        synonyms=("--feat",),
    ),
    Flag(
        "--hierarchy",
        required=True,
        metavar="H",
        help="`parent child` lines, or a tree by indentation",
    ),
    *HIERARCHY_FORMAT,
    Flag("--norm", action="store_true", help="rank by cosine similarity, not Euclidean distance"),
)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The checked command line.

    Raises:
        UsageError: A file is missing.
    """
    parser = Parser(description=__doc__)
    for flag in FLAGS:
        flag.add_to(parser)
    args = parser.parse_args(argv)
    paths.check_input_file("--features", args.features, ".npz")
    paths.check_input_file("--hierarchy", args.hierarchy)
    return args


def evaluate(args: argparse.Namespace) -> dict[str, float]:
    """The retrieval scores of a feature dump.

    Raises:
        UserError: A file is damaged, or classes are not in the hierarchy.
    """
    from embeddings.hierarchy_files import read_hierarchy
    from embeddings.retrieval import retrieval_scores

    hierarchy = read_hierarchy(args.hierarchy, is_a=args.is_a, str_ids=args.str_ids)
    dump = read_features(args.features)
    class_ids = list(map(str, dump.class_ids)) if args.str_ids else dump.class_ids
    try:
        similarities = {
            "LCS height": 1 - hierarchy.dissimilarity(class_ids),
            "WUP": hierarchy.wu_palmer(class_ids),
        }
    except utils.UserError as error:
        raise utils.UserError(f"{args.hierarchy}: {error}") from None
    try:
        return retrieval_scores(dump.features, dump.labels, similarities, norm=args.norm)
    except utils.UserError as error:
        raise utils.UserError(f"{args.features}: {error}") from None


def main() -> int:
    for name, value in evaluate(parse_arguments()).items():
        print(f"{name}: {value:.4f}")
    return 0


if __name__ == "__main__":
    utils.run_script(main)
