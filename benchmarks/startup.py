"""Where the time goes from the start of a process to the end of its first training step.

    python benchmarks/startup.py --architecture resnet-110-wfc --batch_size 100
    python benchmarks/startup.py --architecture resnet-50 --image_size 224 --batch_size 16

Starts, in turns and each time in a new process, what learn_classifier.py trains; the same network
in plain Keras, with its own batch normalisation, optimiser, regularisers and `fit`; and, where
PyTorch is installed and the network is one of `benchmarks/pytorch_training.py`, that. All train and
evaluate on a constant batch of random images of 100 classes. Prints the wall-clock and CPU
seconds of every stage; of several rounds those of the one that used the CPU least. On a machine
with other work the CPU's are the ones to compare.
"""

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from architectures import get_architecture

OURS, PLAIN, PYTORCH = "ours", "plain Keras", "PyTorch"
CLASSES = 100
CLIP_NORM = 10.0
MEAN, STD = 125.0, 60.0
STEPS = 3
FIRST_STEP, FIRST_EVALUATION = "first training step", "first evaluation step"
IMPORTS, BUILDING = "imports", "building the network"


class Stages:
    """Seconds of a process by stage, each beginning where the one before ends."""

    def __init__(self, started: float):
        self.seconds: dict[str, tuple[float, float]] = {}
        self._wall, self._cpu = started, 0.0

    def end(self, name: str) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        wall, cpu = time.time(), used.ru_utime + used.ru_stime
        self.seconds.setdefault(name, (wall - self._wall, cpu - self._cpu))
        self._wall, self._cpu = wall, cpu


def step_name(index: int) -> str:
    return f"training step {index + 1}" if index else FIRST_STEP


def random_batch(args: argparse.Namespace):
    import numpy as np

    rng = np.random.default_rng(0)
    shape = (args.batch_size, args.image_size, args.image_size, 3)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    return images, rng.integers(0, CLASSES, args.batch_size, dtype=np.int32)


def train_pytorch(args: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Trains with PyTorch in this process and gives its stages."""
    stages = Stages(args.started)
    import numpy as np

    from benchmarks import pytorch_training

    stages.end(IMPORTS)
    network = pytorch_training.make_network(args.architecture, (MEAN,) * 3, (STD,) * 3, CLASSES)
    training = pytorch_training.TorchTraining(
        network,
        np.eye(CLASSES, dtype=np.float32),
        "cpu",
        learning_rate=0.01,
        clip_norm=CLIP_NORM,
        weight_decay=2e-4,
    )
    stages.end(BUILDING)
    images, labels = random_batch(args)
    for step in range(STEPS):
        training.fit(images, labels, 1)
        stages.end(step_name(step))
    network.eval()
    training.outputs(images)
    stages.end(FIRST_EVALUATION)
    return stages.seconds


def train(args: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Trains with Keras in this process and gives its stages."""
    stages = Stages(args.started)
    if args.run == OURS:
        import training  # noqa: F401  (it makes the import of Keras a lean one)
    import keras

    from benchmarks.training_loop import ConstantBatch
    from learn_classifier import build_classifier
    from training import fitting, starting
    from training.flags import arguments

    stages.end(IMPORTS)
    flags = ["--dataset", "digits", "--embedding", "onehot", "--clipgrad", str(CLIP_NORM)]
    flags += ["--architecture", args.architecture, "--image_size", str(args.image_size)]
    flags += ["--batch_size", str(args.batch_size)]
    resolved = arguments.training_parser().parse_args(flags)
    resolved = arguments.check_training_arguments(resolved)
    if args.run == OURS:
        starting.prepare(resolved)
    model = build_classifier(resolved, _dataset(args.image_size))
    if args.run == PLAIN:
        model = _in_plain_keras(model, resolved)
    stages.end(BUILDING)

    class EndStages(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            float(logs["loss"])  # wait for the device
            stages.end(step_name(batch))

        def on_test_batch_end(self, batch, logs=None):
            stages.end(FIRST_EVALUATION)

    batch = random_batch(args)
    if args.run == OURS:
        fitting.prepare(model)
        stages.end("making variables")
    test = ConstantBatch(batch, 1)
    model.fit(
        ConstantBatch(batch, STEPS),
        validation_data=test,
        shuffle=False,
        verbose=0,
        callbacks=[EndStages()],
    )
    stages.end("end of the epoch")
    model.predict(test, verbose=0)
    stages.end("first prediction")
    return stages.seconds


def _dataset(side: int):
    spec = SimpleNamespace(test_resize=side, exif_rotation=True)
    return SimpleNamespace(
        class_ids=range(CLASSES),
        class_names=[str(i) for i in range(CLASSES)],
        mean=(MEAN,) * 3,
        std=(STD,) * 3,
        std_epsilon=0.0,
        channel_order="rgb",
        spec=spec,
    )


def _in_plain_keras(model, args):
    import keras

    import models
    from training.learning import metrics

    def clone(layer):
        if not isinstance(layer, models.BatchNormalization):
            return layer.__class__.from_config(layer.get_config())
        return keras.layers.BatchNormalization(name=layer.name)

    network = keras.Model(model.input, model.output)
    plain = keras.models.clone_model(network, clone_function=clone)
    optimizer = keras.optimizers.SGD(momentum=0.9, global_clipnorm=args.clipgrad)
    accuracy = metrics.ClassAccuracy(class_embeddings=model.class_embeddings)
    plain.compile(optimizer, loss=model.loss, metrics=[accuracy])
    return plain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--architecture", default="resnet-32-fc")
    parser.add_argument("--image_size", type=int, default=32, metavar="PIXELS")
    parser.add_argument("--batch_size", type=int, default=100, metavar="N")
    parser.add_argument("--rounds", type=int, default=1, metavar="N")
    parser.add_argument("--run", choices=(OURS, PLAIN, PYTORCH), help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        print(json.dumps(train_pytorch(args) if args.run == PYTORCH else train(args)))
        return
    rounds = {OURS: [], PLAIN: []}
    family = get_architecture(args.architecture).family
    if importlib.util.find_spec("torch") and family in ("resnet", "cifar_resnet"):
        rounds[PYTORCH] = []
    for _ in range(args.rounds):
        for run, results in rounds.items():
            command = [sys.executable, *sys.argv, "--run", run, "--started", str(time.time())]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{args.architecture}, {args.image_size} pixels, batch {args.batch_size}")
    for run, results in rounds.items():
        print(run)
        best = min(results, key=lambda stages: sum(cpu for _, cpu in stages.values()))
        wall = cpu = 0.0
        for stage, seconds in best.items():
            print(f"  {stage:24} {seconds[0]:7.2f} s {seconds[1]:7.2f} s of CPU")
            wall, cpu = wall + seconds[0], cpu + seconds[1]
            if stage == FIRST_STEP:
                print(f"  {'to the first step':24} {wall:7.2f} s {cpu:7.2f} s of CPU")


if __name__ == "__main__":
    main()
