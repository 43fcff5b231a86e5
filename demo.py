"""The demo of `make demo`: two losses on ten handwritten digits per class, in two minutes.

It does what a user would: trains with learn_classifier.py, compares the scores, draws the accuracy
curves, and labels images with predict.py and the better model.
"""

import csv
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from utils import run_script

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "demo_results"

# 10 training images per class; the two share everything but the loss and its learning rate.
TRAINING = "--dataset digits-sub10 --architecture resnet-32-fc --epochs 36 --batch_size 50"
RUNS = {
    "cross entropy": ("cross_entropy", "--sgdr_max_lr 0.1"),
    "cosine loss": ("cosine", "--sgdr_max_lr 0.5 --embedding onehot"),
}
_SHADES = " .:*#"


def run(script: str, flags: str) -> None:
    """Runs a script of the project, showing its command, and stops the demo where it fails."""
    print(f"\n$ python {script} {flags}", flush=True)
    status = subprocess.run([sys.executable, ROOT / script, *shlex.split(flags)], cwd=ROOT)
    if status.returncode:
        sys.exit(f"demo: {script} ended with status {status.returncode}")


def write_digits(folder: Path) -> list:
    """Writes the first test image of each digit as a PNG; all ten as arrays `(8, 8)`."""
    from PIL import Image

    import datasets

    test = datasets.load_dataset("digits", cache="none").test
    labels = list(test.labels)
    digits = [test.images[labels.index(digit)] for digit in range(10)]
    folder.mkdir(parents=True, exist_ok=True)
    for digit, pixels in enumerate(digits):
        Image.fromarray(pixels).save(folder / f"{digit}.png")
    return [pixels[..., 0] for pixels in digits]


def as_text(images: list) -> str:
    """Grey images side by side as characters; brighter pixels are denser ones."""

    def shade(value: int) -> str:
        return 2 * _SHADES[int(value) * len(_SHADES) // 256]

    rows = zip(*images, strict=True)
    return "\n".join("   ".join("".join(map(shade, row)) for row in line) for line in rows)


def draw_curves(path: Path) -> None:
    """Draws the test accuracy of both runs by epoch."""
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
    # An earlier demo's files are the only ones removed: a run never overwrites another one.
    for name, _ in RUNS.values():
        shutil.rmtree(RESULTS / name, ignore_errors=True)
    digits = write_digits(RESULTS / "digits")
    print("Handwritten digits of 8 x 8 pixels, here four of them:\n")
    print(as_text(digits[2:6]))
    print(
        "\nTwo classifiers learn them from 10 images per class, without pre-training, and are\n"
        "tested on 797 other images: the first with cross entropy, the second with the cosine\n"
        "loss. That takes about two minutes on 2 CPU cores."
    )
    for name, flags in RUNS.values():
        run("learn_classifier.py", f"{TRAINING} {flags} --output demo_results/{name}")
    results = {
        label: json.loads((RESULTS / name / "result.json").read_text())
        for label, (name, _) in RUNS.items()
    }
    best = max(results, key=lambda label: results[label]["final"]["acc"])
    print(f"\nThe {best} model labels ten test images; each is named after the digit it shows:")
    run("predict.py", f"--model demo_results/{RUNS[best][0]}/model.keras demo_results/digits")

    draw_curves(RESULTS / "accuracy.png")
    print("\nAccuracy on the 797 test images after the last epoch:\n")
    print(f"{'loss':<16}{'accuracy':>10}{'mean over classes':>20}{'seconds':>10}")
    for label, result in results.items():
        scores = result["final"]
        row = f"{scores['acc']:>10.1%}{scores['average_acc']:>20.1%}"
        print(f"{label:<16}{row}{result['wall_seconds']:>10.0f}")
    print(
        "\nThe curves over the epochs: demo_results/accuracy.png"
        "\nYour own images: README.md, or python learn_classifier.py --help"
    )


if __name__ == "__main__":
    run_script(main)
