"""Training steps with Keras on JAX beside the same network and optimiser in PyTorch.

    pip install torch   # beside requirements-jax.txt with jax[cuda13]
    python benchmarks/beside_pytorch.py --profile profiles
    python benchmarks/beside_pytorch.py --architecture resnet-50 --image_size 64 --batch_size 4

Trains `resnet-50` (448 x 448, batch 96, 200 classes) and `resnet-110-wfc` (32 x 32, batch 100, 100
classes) by the cosine loss on a constant batch of random images, which is copied to the device in
every step: ours by `model.fit`, PyTorch's as `benchmarks/pytorch_training.py` says. Before that it
checks, on a few small images, that both give the same outputs, and the same losses and weights over
3 steps with clipped gradients, up to float32 rounding. For that the blocks begin near the identity:
as they are initialised, rounding alone parts two trainings of the same network within 3 steps.

Both are in one process and take turns; neither reserves the GPU's memory, and PyTorch gives its
cache back after each turn, so that both fit. In the timings both may compute float32 convolutions
and products in TF32, which is JAX's default; in the check neither does. The fastest rounds are
compared. `--profile DIR` writes traces of a few steps and prints the operations that take longest.
"""

import os
import re
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import keras
import numpy as np

import architectures
import models
from benchmarks.operations import jax_operations, print_operations, torch_operations
from benchmarks.training_loop import ConstantBatch, EpochTime
from training.flags import arguments
from training.flags.parser import Parser, number
from training.learning import losses
from training.reporting import report
from utils import UserError, run_script

try:
    import torch
except ModuleNotFoundError:
    torch = None

# Side of the images, images of a batch, classes.
SIZES = {"resnet-50": (448, 96, 200), "resnet-110-wfc": (32, 100, 100)}
PRECISIONS = ("float32", "mixed_bfloat16")
LEARNING_RATE = 0.1
# Most that a check computes with: it also has to run on a CPU, and in float64.
CHECKED_SIDE, CHECKED_BATCH, CHECKED_STEPS = 64, 8, 3
# The scale of the last batch normalisation in each block, a norm that gradients exceed, and the
# largest differences allowed. Without weight decay the change of the weights of resnet-110-wfc
# would be off by 0.06.
CHECKED_GAMMA, CHECKED_CLIP = 0.1, 0.5
TOLERANCES = {"outputs": 1e-4, "losses": 1e-4, "weights": 0.03}
PROFILED_STEPS = 5


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
        choices=("default", "reduce-overhead", "max-autotune"),
        default="default",
        help="of torch.compile",
    )
    parser.add_argument("--profile", metavar="DIR", help="traces for TensorBoard and chrome")
    parser.add_argument("--check_only", action="store_true", help="time nothing")
    args = parser.parse_args()
    for name in args.architecture:
        architectures.check_image_size(name, args.image_size or SIZES[name][0])
    return args


def main() -> None:
    args = parse_arguments()
    if torch is None:
        raise UserError("PyTorch is not installed: pip install torch (it is in no requirements)")
    on_gpu = jax.default_backend() != "cpu"
    if on_gpu != torch.cuda.is_available():
        raise UserError("only one of JAX and PyTorch finds the GPU; install both for its CUDA")
    print(
        f"Keras {keras.__version__} on JAX {jax.__version__}, PyTorch {torch.__version__}, "
        f"{report.describe_device()}"
    )
    if not on_gpu:
        print("No GPU: the times below say nothing about one.")
    for name in args.architecture:
        side, batch_size, num_classes = SIZES[name]
        side, batch_size = args.image_size or side, args.batch_size or batch_size
        check(name, min(side, CHECKED_SIDE), min(batch_size, CHECKED_BATCH), num_classes, args)
        for precision in [] if args.check_only else args.precision:
            print(f"\n{name} at {side} x {side}, batch {batch_size}, {precision}")
            contest = Contest(name, side, batch_size, num_classes, precision, args.compile_mode)
            compare_speed(contest, args)
            if args.profile:
                profile(contest, Path(args.profile, f"{name}-{precision}"))
            del contest
            release_memory()


def build(
    name: str, num_classes: int, precision: str = "float32", flags: Sequence[str] = ()
) -> models.ImageClassifier:
    """A classifier with one-hot class embeddings, compiled as a training with these flags does."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(precision)
    model = models.build_model(
        name,
        [str(i) for i in range(num_classes)],
        head=models.EmbeddingHead(np.eye(num_classes, dtype="float32")),
        # Of uniform grey levels.
        preprocessing=models.Preprocessing(mean=(127.5,) * 3, std=(73.9,) * 3),
        info={"loss": "inv_corr", "cls_weight": 0.0, "label_smoothing": 0.0},
    )
    losses.compile_model(arguments.training_parser().parse_args(list(flags)), model)
    model.optimizer.learning_rate = LEARNING_RATE
    return model


def torch_training(model: models.ImageClassifier, **options):
    """The same training in PyTorch."""
    from benchmarks.pytorch_training import TorchTraining

    regularizer = model.get_layer("embedding").kernel_regularizer
    return TorchTraining(
        model,
        "cuda" if torch.cuda.is_available() else "cpu",
        learning_rate=LEARNING_RATE,
        clip_norm=model.optimizer.global_clipnorm,
        weight_decay=float(regularizer.l2) if regularizer else 0.0,
        **options,
    )


def random_batch(side: int, batch_size: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, side, side, 3), np.uint8)
    return images, rng.integers(0, num_classes, batch_size).astype("int32")


def release_memory() -> None:
    """Frees what the programs of one comparison hold on the device."""
    keras.utils.clear_session()
    jax.clear_caches()
    torch.compiler.reset()
    torch.cuda.empty_cache()


# ------------------------------------------------------------------------------------ the check


def check(name: str, side: int, batch_size: int, num_classes: int, args: Namespace) -> None:
    """Checks that both train the same network the same way.

    Raises:
        UserError: They do not.
    """
    from benchmarks.pytorch_training import copy_network

    images, labels = random_batch(side, batch_size, num_classes)
    batches = ConstantBatch((images, labels), 1)
    use_tf32(False)
    model = build(name, num_classes, flags=["--clipgrad", str(CHECKED_CLIP)])
    for layer in model.layers:
        if re.fullmatch(r"bn.*(_branch2c|\d-\d+y)", layer.name):
            layer.gamma.assign(layer.gamma * CHECKED_GAMMA)
    trainings = {
        "PyTorch": torch_training(model, compile_mode=args.compile_mode),
        "float64": torch_training(model, double=True),
    }
    start = flat(copy_network(model))

    results = {"Keras on JAX": {"outputs": training_outputs(model, images)}}
    results["Keras on JAX"]["losses"] = [
        model.fit(batches, verbose=0).history["loss"][0] for _ in range(CHECKED_STEPS + 1)
    ]
    results["Keras on JAX"]["weights"] = flat(copy_network(model))
    for which, training in trainings.items():
        results[which] = {"outputs": training.outputs(images)}
        results[which]["losses"] = [
            training.penalty() + training.fit(images, labels, 1) for _ in range(CHECKED_STEPS + 1)
        ]
        results[which]["weights"] = flat(training.network)
    use_tf32(True)

    exact = results.pop("float64")
    errors = {
        which: {
            "outputs": float(np.abs(found["outputs"] - exact["outputs"]).max()),
            "losses": float(np.abs(np.subtract(found["losses"], exact["losses"])).max()),
            "weights": float(
                np.linalg.norm(found["weights"] - exact["weights"])
                / np.linalg.norm(exact["weights"] - start)
            ),
        }
        for which, found in results.items()
    }
    print(
        f"\n{name}, {batch_size} images of {side} x {side}, losses of {CHECKED_STEPS + 1} steps "
        f"{', '.join(f'{loss:.5f}' for loss in exact['losses'])}: largest differences to PyTorch "
        "in float64, of the weights relative to what they changed"
    )
    rows = [
        {"": which} | {key: f"{error:.1e}" for key, error in found.items()}
        for which, found in errors.items()
    ]
    print(report.table(rows), flush=True)
    for which, found in errors.items():
        for key, tolerance in TOLERANCES.items():
            if not found[key] <= tolerance:
                raise UserError(
                    f"{name}: {which} trains something else: {key} differ by {found[key]:.1e}, "
                    f"more than {tolerance:g}"
                )


def training_outputs(model: models.ImageClassifier, images: np.ndarray) -> np.ndarray:
    """What the model gives for a batch in a training step; changes nothing."""
    state = (model.trainable_variables, model.non_trainable_variables)
    state = [[variable.value for variable in variables] for variables in state]
    forward = jax.jit(lambda *inputs: model.stateless_call(*inputs, training=True)[0])
    return np.asarray(forward(*state, images.astype("float32")))


def flat(network) -> np.ndarray:
    """All weights of a PyTorch network in one vector."""
    return np.concatenate([w.detach().cpu().numpy().ravel() for w in network.parameters()])


def use_tf32(allowed: bool) -> None:
    """Whether GPUs may compute float32 convolutions and products in TF32."""
    torch.backends.cudnn.allow_tf32 = allowed
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    jax.config.update("jax_default_matmul_precision", None if allowed else "highest")


# --------------------------------------------------------------------------------------- the times


class Contest:
    """The same training twice, on the same batch.

    Attributes:
        epochs: By name, what trains a number of steps and returns the seconds that took.
    """

    def __init__(
        self,
        name: str,
        side: int,
        batch_size: int,
        num_classes: int,
        precision: str,
        compile_mode: str,
    ):
        images, labels = random_batch(side, batch_size, num_classes)
        model = build(name, num_classes, precision)
        other = torch_training(model, mixed=precision != "float32", compile_mode=compile_mode)

        def ours(steps: int) -> float:
            clock = EpochTime()
            model.fit(ConstantBatch((images, labels), steps), verbose=0, callbacks=[clock])
            return clock.seconds

        def pytorch(steps: int) -> float:
            started = time.perf_counter()
            other.fit(images, labels, steps)
            return time.perf_counter() - started

        self.batch_size = batch_size
        self.epochs: dict[str, Callable[[int], float]] = {"Keras on JAX": ours, "PyTorch": pytorch}


def compare_speed(contest: Contest, args: Namespace) -> None:
    """Times rounds that take turns and prints a table."""
    times = {name: [] for name in contest.epochs}
    for _ in range(args.rounds):
        for name, train in contest.epochs.items():
            train(2)  # compiles, in the first round, and takes the memory
            times[name].append(train(args.steps) / args.steps)
            torch.cuda.empty_cache()
    rows = [
        {
            "": name,
            "ms/step": f"{1000 * min(seconds):.2f}",
            "images/s": f"{contest.batch_size / min(seconds):.1f}",
            "median": f"{contest.batch_size / statistics.median(seconds):.1f}",
            "slowest": f"{contest.batch_size / max(seconds):.1f}",
        }
        for name, seconds in times.items()
    ]
    print(report.table(rows))
    ours, theirs = (min(seconds) for seconds in times.values())
    print(f"speed of Keras on JAX / PyTorch: {theirs / ours:.3f}")


def profile(contest: Contest, directory: Path) -> None:
    """Writes traces of a few steps of both, and prints what takes longest."""
    ours, pytorch = contest.epochs.values()
    for train in (ours, pytorch):
        train(2)
    with jax.profiler.trace(str(directory / "jax")):
        ours(PROFILED_STEPS)
    [*_, newest] = sorted(directory.glob("jax/plugins/profile/*/*.xplane.pb"))
    print_operations("Keras on JAX", jax_operations(newest), PROFILED_STEPS)

    with torch.profiler.profile() as profiler:
        pytorch(PROFILED_STEPS)
    profiler.export_chrome_trace(str(directory / "pytorch.json.gz"))
    print_operations("PyTorch", torch_operations(profiler), PROFILED_STEPS)
    print(f"traces: {directory}")


if __name__ == "__main__":
    run_script(main)
