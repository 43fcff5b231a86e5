"""Writes a dumped model in another program's format, and checks that it does the same.

    python export_model.py M.keras --out M.onnx --images photos/

reads the file again with the format's own runtime, compares both on the images, and leaves no file
if they disagree. The file takes uint8 images and gives scores; how images are resized, the classes
and the temperature are in its metadata.
"""

import argparse
import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from utils import (  # first: it says in a line what fails to load
    UsageError,
    UserError,
    atomic_path,
    run_script,
    say,
)

# isort: split
import numpy as np

import datasets
from datasets.sources import folder
from deployment.facts import FORMATS, QUANTIZED
from training import data
from training.devices import flags as devices
from training.flags import paths
from training.flags.declaration import Flag, FlagGroup, add_groups
from training.flags.parser import Parser, number

# Images of which the best class is compared, and whose activations say what 8 bits stand for.
_CHECKED, _EXAMPLES = 512, 128
_DATASET, *_OTHERS = (flag for flag in data.FLAGS.flags if flag.name != "--image_size")
GROUPS = (
    FlagGroup(
        "export",
        (
            Flag("model", metavar="M.keras", help="a dumped model"),
            Flag("--out", required=True, metavar="FILE", help="the file to write"),
            Flag(
                "--format",
                choices=tuple(FORMATS),
                help="of the file",
                default_text="what its name says: .onnx, .tflite for litert, none for saved_model",
            ),
            Flag(
                "--quantize",
                choices=("int8", "float16"),
                help="store numbers in less bits; int8 needs --images or --dataset",
                default_text="float32",
            ),
            Flag(
                "--agreement",
                type=number(least=0, most=1),
                default=0.995,
                metavar="SHARE",
                help="of the images that must get the same class as from the model",
            ),
        ),
    ),
    FlagGroup(
        "images to compare on",
        (
            Flag("--images", metavar="DIR", help="a folder of images"),
            dataclasses.replace(
                _DATASET,
                default=None,
                default_text="--images, or random images",
                help="a data set, whose test images are taken",
            ),
            *_OTHERS,
        ),
    ),
)


def parse_arguments() -> argparse.Namespace:
    """The checked command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    add_groups(parser, GROUPS)
    args = parser.parse_args()
    paths.check_input_file("model", args.model, ".keras")
    suffix = os.path.splitext(args.out)[1]
    by_suffix = {suffix: name for name, suffix in FORMATS.items()}
    if not args.format and suffix not in by_suffix:
        raise UsageError(
            f"--out {args.out}: ends neither in .onnx nor in .tflite; a SavedModel is a folder, so "
            "give a name without an extension, or --format"
        )
    args.format = args.format or by_suffix[suffix]
    if args.quantize and args.format not in QUANTIZED:
        raise UsageError(
            f"--quantize {args.quantize}: {args.format} has no such form; give --format "
            f"{' or '.join(QUANTIZED)}"
        )
    if args.format == "saved_model":
        if os.path.exists(args.out):
            raise UsageError(f"--out {args.out}: is there already; give a new folder's name")
        args.out = args.out.rstrip("/")
    paths.check_output_file("--out", args.out, FORMATS[args.format])
    if args.images and args.dataset:
        raise UsageError("--images and --dataset: the images come from one of them; give one")
    if args.images and not os.path.isdir(args.images):
        raise UsageError(f"--images {args.images}: there is no such folder")
    if args.quantize == "int8" and not (args.images or args.dataset):
        raise UsageError(
            "--quantize int8: needs images like those that the model is for, which show how large "
            "its numbers become; give --images DIR or --dataset"
        )
    args.image_size = None
    if args.dataset:
        data.check_data_arguments(args)
    # The formats' writers are TensorFlow's; the dumped model is of no backend.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    devices.backend()
    return args


def find_images(args: argparse.Namespace, model) -> np.ndarray:
    """What the model sees of the images that the arguments name, `(n, S, S, 3)`."""
    from deployment import checking

    most = _CHECKED + (_EXAMPLES if args.quantize == "int8" else 0)
    if args.images:
        found = folder.list_images(Path(args.images))
        chosen = [found[i] for i in checking.spread(len(found), most)] if found else []
        images, errors = checking.seen_images(model, chosen)
        for error in errors:
            say(f"left out: {error}")
        if not len(images):
            raise UserError(f"--images {args.images}: has no image that can be read")
        return images
    if args.dataset:
        options = data.loading_options(args) | {"image_size": model.info["image_size"]}
        options["exif_rotation"] = model.info.get("exif_rotation", False)
        dataset = datasets.load_dataset(args.dataset, args.data_root, splits=("test",), **options)
        dataset.test = dataset.test.take(checking.spread(len(dataset.test), most))
        batches = dataset.test_batches(checking.BATCH, **data.reading_options(args))
        with datasets.reading_errors(batches):
            return np.concatenate([batches[i][0] for i in range(len(batches))])
    return checking.random_images(model.info["image_size"], _CHECKED)


@contextlib.contextmanager
def atomic_folder(target: str) -> Iterator[Path]:
    """As `atomic_path`, of a folder that is not there yet."""
    beside = os.path.dirname(os.path.abspath(target))
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=beside) as directory:
        temporary = Path(directory, "folder")
        yield temporary
        shutil.move(temporary, target)


def main() -> None:
    args = parse_arguments()

    from deployment import checking, exported, exporting, loading
    from deployment.quiet import quiet

    model = loading.load_model(args.model)
    images = find_images(args, model)
    examples = None
    if args.quantize == "int8":
        # Others than those that are compared, as far as there are others.
        parts = min(_EXAMPLES, len(images) // 2)
        chosen = checking.spread(len(images), parts) if parts else np.arange(len(images))
        examples = images[chosen]
        images = np.delete(images, chosen, axis=0) if parts else images
    writing = atomic_folder if args.format == "saved_model" else atomic_path
    with writing(args.out) as temporary:
        with quiet():
            exporting.write_exported(model, temporary, args.format, args.quantize, examples)
            written = exported.read_exported(temporary)
        found = checking.compare(model, written, images)
        if not args.images and not args.dataset:
            say("Compared on random images, as there is neither --images nor --dataset.")
        say(
            f"The same class for {found.same} of {found.images} images; largest difference of "
            f"scores: {found.difference:.2g}"
        )
        if found.classes == 1:
            say("The model takes all of them for one class, so that this says little.")
        if found.agreement < args.agreement:
            raise UserError(
                f"--out {args.out}: not written, as it agrees with {args.model} on "
                f"{found.agreement:.2%} of the images, and --agreement asks for "
                f"{args.agreement:.2%}"
            )
        sizes = [checking.size_of(path) for path in (args.model, temporary)]
    for name, size, cost in zip((args.model, args.out), sizes, found.milliseconds, strict=True):
        say(f"{name}: {size / 1e6:.2f} MB, {cost:.2f} ms per image")


if __name__ == "__main__":
    run_script(main)
