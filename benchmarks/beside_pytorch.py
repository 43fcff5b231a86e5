"""Training steps with Keras on JAX beside the same network and optimiser in PyTorch.

    pip install torch   # beside requirements-jax.txt with jax[cuda13]
    python benchmarks/beside_pytorch.py --profile profiles
    python benchmarks/beside_pytorch.py --architecture resnet-50 --image_size 64 --batch_size 4

Trains `resnet-50` (448 x 448, batch 96, 200 classes) and `resnet-110-wfc` (32 x 32, batch 100, 100
classes) by the cosine loss on a constant batch of random images, which is copied to the device in
every step: ours by `model.fit`, PyTorch's as `benchmarks/pytorch_training.py` says. Before that it
checks, on a few small images, that both give the same outputs, and the same losses and weights over
4 steps with clipped gradients, up to float32 rounding. For that the blocks begin near the identity:
as they are initialised, rounding alone parts two trainings of the same network within 3 steps.

Each has a process of its own, and they take turns; neither reserves the GPU's memory, and PyTorch
gives its cache back after each turn, so that both fit. In the timings both may compute float32
convolutions and products in TF32, which is JAX's default; in the check neither does. The fastest
rounds are compared. `--profile DIR` writes traces of a few steps and prints the operations that
take longest.
"""

import importlib.util
import os
import sys
from argparse import Namespace
from pathlib import Path

# PyTorch's process imports this file too, so it must not load Keras.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import architectures
from benchmarks.pytorch_process import Process
from training.flags.parser import Parser, number
from utils import UserError, run_script

# Side of the images, images of a batch, classes.
SIZES = {"resnet-50": (448, 96, 200), "resnet-110-wfc": (32, 100, 100)}
PRECISIONS = ("float32", "mixed_bfloat16")
# Most that a check computes with: it also has to run on a CPU, and in float64.
CHECKED_SIDE, CHECKED_BATCH = 64, 8


def parse_arguments() -> Namespace:
    parser = Parser(description=__doc__.split("\n")[0])
    whole = number(int, least=1)
    parser.add_argument("--architecture", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--image_size", type=whole, metavar="S", help="(default: the network's)")
    parser.add_argument("--batch_size", type=whole, metavar="N", help="(default: the network's)")
    parser.add_argument("--steps", type=whole, default=20, metavar="N", help="per round")
    parser.add_argument("--rounds", type=whole, default=5, metavar="N", help="of each, in turns")
    parser.add_argument(
        "--compile_mode",
        choices=("off", "default", "reduce-overhead", "max-autotune"),
        default="default",
        help="of torch.compile, which takes minutes on a CPU; off: without it",
    )
    parser.add_argument("--profile", metavar="DIR", help="traces for TensorBoard and chrome")
    parser.add_argument("--check_only", action="store_true", help="time nothing")
    args = parser.parse_args()
    for name in args.architecture:
        architectures.check_image_size(name, args.image_size or SIZES[name][0])
    args.compile_mode = None if args.compile_mode == "off" else args.compile_mode
    return args


def main() -> None:
    args = parse_arguments()
    if importlib.util.find_spec("torch") is None:
        raise UserError("PyTorch is not installed: pip install torch (it is in no requirements)")
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with Process() as process:
        compare(args, process.PyTorch())


def compare(args: Namespace, pytorch) -> None:
    """Checks and times what the arguments name."""
    from benchmarks import contest

    print(contest.describe(pytorch), flush=True)
    for name in args.architecture:
        side, batch_size, num_classes = SIZES[name]
        side, batch_size = args.image_size or side, args.batch_size or batch_size
        small = min(side, CHECKED_SIDE), min(batch_size, CHECKED_BATCH)
        contest.check(pytorch, name, *small, num_classes, args.compile_mode)
        for precision in [] if args.check_only else args.precision:
            print(f"\n{name} at {side} x {side}, batch {batch_size}, {precision}", flush=True)
            sizes = side, batch_size, num_classes
            both = contest.Contest(pytorch, name, *sizes, precision, args.compile_mode)
            contest.compare_speed(both, args)
            if args.profile:
                both.profile(Path(args.profile, f"{name}-{precision}"))
            del both
            contest.release_memory(pytorch)


if __name__ == "__main__":
    run_script(main)
