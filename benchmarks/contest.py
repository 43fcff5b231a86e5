"""The same training by Keras on JAX and by PyTorch: whether it is the same, and how fast."""

import re
import statistics
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import keras
import numpy as np

import models
from benchmarks.operations import jax_operations, print_operations
from benchmarks.pytorch_process import PyTorch
from benchmarks.training_loop import ConstantBatch, EpochTime
from training.flags import arguments
from training.learning import losses
from training.reporting import report
from utils import UserError

LEARNING_RATE = 0.1
CHECKED_STEPS = 3
# The scale of the last batch normalisation in each block, a norm that gradients exceed, and the
# largest differences allowed. Without weight decay the change of the weights of resnet-110-wfc
# would be off by 0.06.
CHECKED_GAMMA, CHECKED_CLIP = 0.1, 0.5
TOLERANCES = {"outputs": 1e-4, "losses": 1e-4, "weights": 0.03}
PROFILED_STEPS = 5
OURS, THEIRS = "Keras on JAX", "PyTorch"


def describe(pytorch: PyTorch) -> str:
    """What competes, on what device.

    Raises:
        UserError: Only one of the two finds a GPU.
    """
    if (jax.default_backend() != "cpu") != pytorch.finds_gpu():
        raise UserError("only one of JAX and PyTorch finds the GPU; install both for its CUDA")
    text = (
        f"Keras {keras.__version__} on JAX {jax.__version__}, PyTorch {pytorch.version()}, "
        f"{report.describe_device()}"
    )
    if not pytorch.finds_gpu():
        text += "\nNo GPU: the times below say nothing about one."
    return text


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


def network_and_weights(model: models.ImageClassifier) -> tuple[dict[str, Any], dict]:
    """What makes a model's network in PyTorch, and its weights by layer and name."""
    standardize = model.get_layer("standardize")
    network = {
        "name": model.name,
        "mean": standardize.mean,
        "std": tuple(value + standardize.std_epsilon for value in standardize.std),
        "dimensions": model.class_embeddings.shape[1],
    }
    weights = {
        f"{layer.name}/{weight.name}": keras.ops.convert_to_numpy(weight)
        for layer in model.layers
        for weight in layer.weights
    }
    return network, weights


def add_pytorch(pytorch: PyTorch, name: str, model: models.ImageClassifier, **options) -> None:
    """The same training in PyTorch, by this name."""
    regularizer = model.get_layer("embedding").kernel_regularizer
    pytorch.add(
        name,
        *network_and_weights(model),
        model.class_embeddings,
        learning_rate=LEARNING_RATE,
        clip_norm=model.optimizer.global_clipnorm,
        weight_decay=float(regularizer.l2) if regularizer else 0.0,
        **options,
    )


def random_batch(side: int, batch_size: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, side, side, 3), np.uint8)
    return images, rng.integers(0, num_classes, batch_size).astype("int32")


def release_memory(pytorch: PyTorch) -> None:
    """Frees what the programs of one comparison hold on the device."""
    keras.utils.clear_session()
    jax.clear_caches()
    pytorch.release()


def use_tf32(pytorch: PyTorch, allowed: bool) -> None:
    """Whether GPUs may compute float32 convolutions and products in TF32."""
    pytorch.use_tf32(allowed)
    jax.config.update("jax_default_matmul_precision", None if allowed else "highest")


# ------------------------------------------------------------------------------------ the check


def check(
    pytorch: PyTorch,
    name: str,
    side: int,
    batch_size: int,
    num_classes: int,
    compile_mode: str | None,
) -> None:
    """Checks that both train the same network the same way.

    Raises:
        UserError: They do not.
    """
    images, labels = random_batch(side, batch_size, num_classes)
    batches = ConstantBatch((images, labels), 1)
    steps = CHECKED_STEPS + 1
    use_tf32(pytorch, False)
    model = build(name, num_classes, flags=["--clipgrad", str(CHECKED_CLIP)])
    for layer in model.layers:
        if re.fullmatch(r"bn.*(_branch2c|\d-\d+y)", layer.name):
            layer.gamma.assign(layer.gamma * CHECKED_GAMMA)
    add_pytorch(pytorch, THEIRS, model, compile_mode=compile_mode)
    add_pytorch(pytorch, "float64", model, double=True)
    start = pytorch.flat(*network_and_weights(model))

    results = {OURS: {"outputs": training_outputs(model, images)}}
    results[OURS]["losses"] = [
        model.fit(batches, verbose=0).history["loss"][0] for _ in range(steps)
    ]
    results[OURS]["weights"] = pytorch.flat(*network_and_weights(model))
    for which in (THEIRS, "float64"):
        results[which] = {
            "outputs": pytorch.outputs(which, images),
            "losses": pytorch.losses(which, images, labels, steps),
            "weights": pytorch.weights(which),
        }
    use_tf32(pytorch, True)
    release_memory(pytorch)

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
        f"\n{name}, {batch_size} images of {side} x {side}, losses of {steps} steps "
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


# --------------------------------------------------------------------------------------- the times


class Contest:
    """The same training twice, on the same batch.

    Args:
        pytorch: The other process.
        name: The architecture.
        side, batch_size, num_classes: Of the batch.
        precision: Of both.
        compile_mode: Of PyTorch; `None` does not compile.
    """

    def __init__(
        self,
        pytorch: PyTorch,
        name: str,
        side: int,
        batch_size: int,
        num_classes: int,
        precision: str,
        compile_mode: str | None,
    ):
        self.batch_size = batch_size
        self._pytorch = pytorch
        self._batch = random_batch(side, batch_size, num_classes)
        self._model = build(name, num_classes, precision)
        mixed = precision != "float32"
        add_pytorch(pytorch, THEIRS, self._model, mixed=mixed, compile_mode=compile_mode)

    def _fit(self, steps: int) -> float:
        clock = EpochTime()
        self._model.fit(ConstantBatch(self._batch, steps), verbose=0, callbacks=[clock])
        return clock.seconds

    def seconds(self, which: str, steps: int) -> float:
        """The time of training steps; before them, two that compile and take the memory."""
        if which == THEIRS:
            return self._pytorch.seconds(THEIRS, *self._batch, steps)
        self._fit(2)
        return self._fit(steps)

    def profile(self, directory: Path) -> None:
        """Writes traces of a few steps of both, and prints what takes longest."""
        self._fit(2)
        with jax.profiler.trace(str(directory / "jax")):
            self._fit(PROFILED_STEPS)
        [*_, newest] = sorted(directory.glob("jax/plugins/profile/*/*.xplane.pb"))
        print_operations(OURS, jax_operations(newest), PROFILED_STEPS)

        path = str((directory / "pytorch.json.gz").resolve())
        total = self._pytorch.profile(THEIRS, *self._batch, PROFILED_STEPS, path)
        print_operations(THEIRS, total, PROFILED_STEPS)
        print(f"traces: {directory}")


def compare_speed(contest: Contest, args: Namespace) -> None:
    """Times rounds that take turns and prints a table."""
    times: dict[str, list[float]] = {OURS: [], THEIRS: []}
    for _ in range(args.rounds):
        for name, seconds in times.items():
            seconds.append(contest.seconds(name, args.steps) / args.steps)
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
    print(f"speed of {OURS} / {THEIRS}: {min(times[THEIRS]) / min(times[OURS]):.3f}")
