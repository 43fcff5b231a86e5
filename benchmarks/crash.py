"""Kills a training again and again, and compares what comes out with an uninterrupted run.

    python benchmarks/crash.py --data_root DIR

trains on digits and, with `--data_root`, on classes of CIFAR-100 (`resnet-32-fc`). Each training
is killed with SIGKILL `--kills` times, in turn anywhere after its start, while it trains, and
while it saves, and started again with the same command. In the end weights, optimiser,
history.csv and result.json have to be the same bit by bit, but for times and paths.
"""

import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from training.flags.parser import Parser, number
from training.reporting import report
from training.resuming import snapshots
from utils import UserError, run_script

ROOT = Path(__file__).resolve().parents[1]
COMMON = (
    "--embedding onehot --cls_weight 0.1 --deterministic --no_progress --snapshot_every 0.3 "
    "--snapshot_best --read_workers 2"
)
DIGITS = "--dataset digits-sub10 --architecture simple --batch_size 50 --epochs 20"
CIFAR = "--dataset CIFAR-100 --architecture resnet-32-fc --batch_size 100 --epochs 8"


class Training:
    """One training in a directory of its own, started as often as it takes."""

    def __init__(self, flags: str, directory: Path):
        directory.mkdir()
        self.directory = directory
        self.snapshot = directory / "snapshot"
        outputs = f"--snapshot {self.snapshot} --log_dir {directory}/log"
        self.command = [sys.executable, "learn_classifier.py", *f"{flags} {outputs}".split()]
        self.errors = directory / "errors"

    def start(self) -> subprocess.Popen:
        with open(self.errors, "a") as errors:
            return subprocess.Popen(
                self.command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors
            )

    def finish(self) -> None:
        if self.start().wait():
            raise UserError(f"the training failed: {self.errors.read_text().splitlines()[-1]}")

    def place(self) -> str:
        loaded = snapshots.load(self.snapshot)
        return loaded.snapshot.place if loaded else "before the first snapshot"

    def outcome(self) -> dict:
        """Everything that must not depend on interruptions."""
        with open(self.directory / "log" / "history.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        result = json.loads((self.directory / "log" / "result.json").read_text())
        del result["wall_seconds"]
        for name in ("snapshot", "log_dir"):
            del result["arguments"][name]
        for row in [*rows, result["best"]]:
            del row["seconds"], row["images_per_second"]
        return {"rows": rows, "result": result, "arrays": snapshots.read(self.snapshot).arrays}


def wait_until(process: subprocess.Popen, condition) -> None:
    """Looks as often as it can; a save takes a few milliseconds."""
    while not condition():
        if process.poll() is not None:
            raise UserError("the training ended before it was killed often enough: more --epochs")
        time.sleep(0.0005)


def kill(training: Training, kind: str, draw: random.Random, startup: float) -> str:
    """Starts the training and kills it; returns where it was."""
    process = training.start()
    try:
        if kind == "anywhere":
            moment = time.monotonic() + draw.uniform(0, startup)
            wait_until(process, lambda: time.monotonic() > moment)
        else:
            # The second save comes from within the training, the first when it begins.
            for _ in range(2):
                wait_until(process, Path(f"{training.snapshot}.partial").exists)
                wait_until(process, lambda: not Path(f"{training.snapshot}.partial").exists())
            moment = time.monotonic() + draw.uniform(0, 1)
            wait_until(process, lambda: time.monotonic() > moment)
            if kind == "saving":
                wait_until(process, Path(f"{training.snapshot}.partial").exists)
    finally:
        process.kill()
        process.wait()
    return training.place()


def compare(name: str, flags: str, kills: int, seed: int, directory: Path) -> bool:
    """Runs both trainings, prints what happened, and tells whether they agree."""
    whole = Training(flags, directory / f"{name}-whole")
    killed = Training(flags, directory / f"{name}-killed")
    started = time.monotonic()
    whole.finish()
    print(f"{name}: uninterrupted in {time.monotonic() - started:.0f} s", flush=True)
    draw = random.Random(seed)
    rows = []
    for index in range(1, kills + 1):
        kind = ("training", "saving", "anywhere")[index % 3]
        rows.append({"kill": index, "while": kind, "left a snapshot of": ""})
        rows[-1]["left a snapshot of"] = kill(killed, kind, draw, startup=20)
    killed.finish()
    print(report.table(rows))
    expected, found = whole.outcome(), killed.outcome()
    differing = []
    for part in expected:
        try:
            np.testing.assert_equal(found[part], expected[part])
        except AssertionError:
            differing.append(part)
    verdict = f"differs: {', '.join(differing)}" if differing else "the same, bit by bit"
    print(f"{name}: killed {kills} times; {verdict}", flush=True)
    measure(name, killed, found["rows"])
    return not differing


def measure(name: str, training: Training, rows: list[dict]) -> None:
    """Prints what writing the snapshot costs of an epoch."""
    snapshot = snapshots.read(training.snapshot)
    seconds = []
    for _ in range(10):
        started = time.perf_counter()
        snapshots.write(training.directory / "copy", snapshot)
        seconds.append(time.perf_counter() - started)
    with open(training.directory / "log" / "history.csv", newline="") as file:
        epoch = float(np.median([float(row["seconds"]) for row in csv.DictReader(file)]))
    median, size = float(np.median(seconds)), training.snapshot.stat().st_size
    print(
        f"{name}: a snapshot of {size / 1e6:.1f} MB is written in {1000 * median:.0f} ms, "
        f"{median / epoch:.2%} of an epoch of {epoch:.1f} s"
    )


def main() -> int:
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_root", metavar="DIR", help="of CIFAR-100; without it, digits alone")
    parser.add_argument("--classes", type=number(int, least=2), default=5, help="of CIFAR-100")
    parser.add_argument("--kills", type=number(int, least=1), default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    trainings = {"digits": DIGITS}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        if args.data_root:
            class_list = directory / "classes.txt"
            class_list.write_text("".join(f"{i}\n" for i in range(args.classes)))
            root = Path(args.data_root).resolve()
            trainings["CIFAR-100"] = f"{CIFAR} --data_root {root} --class_list {class_list}"
        agree = [
            compare(name, f"{flags} {COMMON}", args.kills, args.seed, directory)
            for name, flags in trainings.items()
        ]
    return 0 if all(agree) else 1


if __name__ == "__main__":
    run_script(main)
