"""Labels images with a model that learn_classifier.py dumped.

    python predict.py --model M.keras photo.jpg more_photos/

prints a line per image: its path, then the best classes with their scores, which are probabilities
or, for a model without a softmax classifier, similarities to the class embeddings.
"""

import argparse
import os
from pathlib import Path

from training.devices import flags as devices
from training.flags import paths
from training.flags.declaration import Flag
from training.flags.parser import Parser, number
from utils import UsageError, printable, run_script

FLAGS = (
    Flag("--model", required=True, metavar="M.keras", help="a dumped model"),
    Flag(
        "--top_k",
        type=number(int, least=1),
        default=1,
        metavar="K",
        help="how many classes to print",
    ),
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


def list_images(paths: list[str]) -> list[Path]:
    """The files themselves, and of folders the images directly in them, sorted by name.

    Raises:
        UsageError: A folder has no images.
    """
    from datasets.sources.folder import EXTENSIONS

    images = []
    for path in map(Path, paths):
        if not path.is_dir():
            images.append(path)
            continue
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in EXTENSIONS)
        if not found:
            raise UsageError(f"{path}: a folder without images ({', '.join(sorted(EXTENSIONS))})")
        images += found
    return images


def main() -> None:
    args = parse_arguments()
    images = list_images(args.images)

    import numpy as np

    import resizing
    from foreign_files import image_files
    from training.reporting import evaluation

    model = evaluation.load_model(args.model)
    side, resize = model.info["image_size"], model.info["test_resize"]
    for path in images:
        image = image_files.load_rgb(path)
        size = resizing.resized_size(*image.size, resize)
        pixels = resizing.center_view(image, size, side)
        _, [scores] = model.classify(pixels[np.newaxis])
        best = np.argsort(-scores, kind="stable")[: args.top_k]
        fields = [str(path), *(f"{model.class_names[i]}: {scores[i]:.4f}" for i in best)]
        print(*map(printable, fields), sep="\t")


if __name__ == "__main__":
    run_script(main)
