"""The demo of `make demo`: two losses on ten handwritten digits per class, in a few minutes.

It does what a user would: trains with learn_classifier.py, evaluates the dumped models with
evaluate_classifier.py, and draws the accuracy curves.
"""

import csv
import json
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "demo_results"

# 10 training images per class; the two share everything but the loss and its learning rate.
TRAINING = "--dataset digits-sub10 --architecture resnet-32-fc --epochs 36 --batch_size 50"
RUNS = {
    "cross entropy": ("cross_entropy", "--sgdr_max_lr 0.1"),
    "cosine loss": ("cosine", "--sgdr_max_lr 0.5 --embedding onehot"),
}


def run(script: str, flags: str) -> None:
    """Runs a script of the project, showing its command, and stops the demo where it fails."""
    print(f"\n$ python {script} {flags}", flush=True)
    status = subprocess.run([sys.executable, ROOT / script, *shlex.split(flags)], cwd=ROOT)
    if status.returncode:
        sys.exit(f"demo: {script} ended with status {status.returncode}")


def draw_curves(path: Path) -> None:
    """Draws the validation accuracy of both runs by epoch."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for label, (name, _) in RUNS.items():
        with open(RESULTS / name / "history.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        axes.plot(
            [int(row["epoch"]) for row in rows],
            [100 * float(row["val_acc"]) for row in rows],
            label=label,
        )
    axes.set(
        xlabel="epoch",
        ylabel="test accuracy (%)",
        title="Handwritten digits, 10 training images per class",
        ylim=(0, 100),
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main() -> None:
    # An earlier demo's files are the only ones removed: a run never overwrites another's log.
    for name, _ in RUNS.values():
        for old in (RESULTS / name).glob("*"):
            old.unlink()
        (RESULTS / name).mkdir(parents=True, exist_ok=True)
    for name, flags in RUNS.values():
        out = f"demo_results/{name}"
        run("learn_classifier.py", f"{TRAINING} {flags} --log_dir {out} --model_dump {out}.keras")
    dumped = " ".join(f"--model demo_results/{name}.keras" for name, _ in RUNS.values())
    run("evaluate_classifier.py", f"{dumped} --dataset digits --json demo_results/evaluation.json")
    draw_curves(RESULTS / "accuracy.png")

    scores = json.loads((RESULTS / "evaluation.json").read_text())["models"]
    print("\n10 training images per class, accuracy on the test images:\n")
    print(f"{'loss':<16}{'accuracy':>10}{'mean over classes':>20}{'seconds':>10}")
    for (label, (name, _)), row in zip(RUNS.items(), scores, strict=True):
        seconds = json.loads((RESULTS / name / "result.json").read_text())["wall_seconds"]
        print(f"{label:<16}{row['acc']:>10.4f}{row['average_acc']:>20.4f}{seconds:>10.0f}")
    print(f"\nAccuracy curves: {RESULTS / 'accuracy.png'}")


if __name__ == "__main__":
    main()
