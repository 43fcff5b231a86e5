"""How much of the network's speed the training loop keeps when it reads real images.

    python benchmarks/training.py --dataset CIFAR-100 --data_root DIR --architecture resnet-32-fc
    python benchmarks/training.py --dataset Flowers --data_root DIR --architecture resnet-50 \\
        --image_size 224 --batch_size 16 --steps 6

Trains the same model in turn on the data set's batches and on one constant batch, `--rounds`
times, in the loop that learn_classifier.py uses, and compares the fastest rounds. Works unchanged
with KERAS_BACKEND=jax where TensorFlow is not installed.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training import arguments, parsers
from utils import run_script


def parse_arguments():
    parser = parsers.training_parser()
    parser.description = __doc__.split("\n")[0]
    group = parser.add_argument_group("benchmark")
    group.add_argument(
        "--steps", type=parsers.number(int, least=1), default=20, metavar="N", help="per round"
    )
    group.add_argument(
        "--rounds",
        type=parsers.number(int, least=1),
        default=3,
        metavar="N",
        help="of each kind of batches",
    )
    return arguments.check_training_arguments(parser.parse_args())


def main() -> None:
    args = parse_arguments()

    import keras
    import numpy as np

    import datasets
    from learn_classifier import build_classifier
    from training import report

    class ConstantBatch(keras.utils.PyDataset):
        """One batch, again and again."""

        def __init__(self, batch, steps):
            super().__init__()
            self.batch, self.steps = batch, steps

        def __len__(self):
            return self.steps

        def __getitem__(self, index):
            return self.batch

    keras.utils.set_random_seed(args.seed)
    keras.config.set_dtype_policy(args.precision)
    dataset = datasets.load_dataset(
        args.dataset, args.data_root, seed=args.seed, **arguments.loading_options(args)
    )
    images = args.steps * args.batch_size
    dataset.train = dataset.train.take(np.arange(images) % len(dataset.train))
    dataset.train_repeats = 1
    model = build_classifier(args, dataset)
    real = dataset.train_batches(
        args.batch_size,
        seed=args.seed,
        **arguments.reading_options(args),
        label_keys=("embedding", "prob") if args.cls_weight else None,
    )
    batches = {"constant batch": ConstantBatch(real[0], args.steps), "real images": real}

    def seconds(kind):
        started = time.perf_counter()
        model.fit(batches[kind], epochs=1, shuffle=False, verbose=0)
        return time.perf_counter() - started

    for kind in batches:  # compilation, and the first pages of the files
        seconds(kind)
    times = {kind: [] for kind in batches}
    for _ in range(args.rounds):
        for kind in batches:
            times[kind].append(seconds(kind))

    print(
        f"{args.architecture}, {args.dataset} at {args.image_size} x {args.image_size}, "
        f"batch {args.batch_size}, {args.precision}, {args.read_workers} workers, "
        f"{keras.backend.backend()} on {report.describe_device()}; "
        f"{args.rounds} rounds of {args.steps} steps"
    )
    # The fastest round is the one least disturbed by whatever else the machine does.
    best = {kind: min(times[kind]) for kind in batches}
    rows = [
        {
            "input": kind,
            "ms/step": f"{1000 * best[kind] / args.steps:.1f}",
            "images/s": f"{images / best[kind]:.1f}",
            "median": f"{images / float(np.median(times[kind])):.1f}",
            "slowest": f"{images / max(times[kind]):.1f}",
        }
        for kind in batches
    ]
    print(report.table(rows))
    ratio = best["constant batch"] / best["real images"]
    print(f"real / constant: {ratio:.3f} of the speed; waiting for data: {max(0, 1 - ratio):.1%}")


if __name__ == "__main__":
    run_script(main)
