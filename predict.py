"""Labels images with a model that learn_classifier.py dumped.

    python predict.py --model M.keras photo.jpg more_photos/

prints a line per image: its path, then the best classes with their scores, which are probabilities
or, for a model without a softmax classifier, similarities to the class embeddings. Of a folder it
takes all images anywhere below it. An image that cannot be read is a line on stderr, and status 1
at the end.
"""

import argparse
import dataclasses
import os
import sys
from pathlib import Path

from utils import (  # first: it says in a line what fails to load
    UsageError,
    UserError,
    one_line,
    run_script,
    say,
)

# isort: split
from training.devices import flags as devices
from training.flags import paths
from training.flags.declaration import Flag
from training.flags.parser import Parser, number
from training.reporting import flags as reporting

FLAGS = (
    dataclasses.replace(reporting.MODELS, action="store", help="a dumped model"),
    Flag(
        "--top_k",
        type=number(int, least=1),
        default=1,
        metavar="K",
        help="how many classes to print",
    ),
    reporting.BATCH_SIZE,
    reporting.TTA,
    Flag("images", nargs="+", metavar="IMAGE", help="image files, or folders of them"),
)


def parse_arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__.split("\n")[0])
    for flag in FLAGS:
        flag.add_to(parser)
    args = parser.parse_args()
    paths.check_input_file("--model", args.model, ".keras")
    devices.backend()
    for path in args.images:
        if not os.path.exists(path):
            raise UsageError(f"{path}: there is no such file or folder")
    return args


def list_images(paths: list[str]) -> list[str]:
    """The files themselves, and of folders all images below them, sorted.

    Raises:
        UsageError: A folder has no images.
    """
    from datasets.sources import folder, image_lists

    images = []
    for path in paths:
        found = folder.list_images(Path(path)) if os.path.isdir(path) else [path]
        if not found:
            extensions = ", ".join(sorted(image_lists.EXTENSIONS))
            raise UsageError(f"{path}: a folder without images ({extensions})")
        images += found
    return images


def main() -> int:
    args = parse_arguments()
    images = list_images(args.images)

    import numpy as np

    from training.reporting import evaluation

    model = evaluation.load_model(args.model)
    status = 0
    for path, scores in model.score_files(images, args.batch_size, mirrored=args.tta == "flip"):
        if isinstance(scores, UserError):
            print(f"predict.py: error: {one_line(scores)}", file=sys.stderr)
            status = 1
            continue
        best = np.argsort(-scores, kind="stable")[: args.top_k]
        fields = [path, *(f"{model.class_names[i]}: {scores[i]:.4f}" for i in best)]
        say(*fields, sep="\t")
    return status


if __name__ == "__main__":
    run_script(main)
