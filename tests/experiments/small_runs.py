"""Directories as `learn_classifier.py` leaves them, written at once."""

import csv
import json


def write_run(directory, score, *, seed=0, wrong=(), epochs=3, **arguments):
    """Writes a run's directory.

    Args:
        directory: Where.
        score: Its accuracy on the test images.
        seed: Its seed.
        wrong: The test images, of 20, that it takes for another class; `None`: no predictions.
        epochs: Rows of its history.
        arguments: Further arguments.
    """
    directory.mkdir(parents=True)
    values = {"seed": seed, "dataset": "digits", "cls_weight": 0.0, "log_dir": str(directory)}
    result = {
        "arguments": {**values, **arguments},
        "seed": seed,
        "final": {"loss": 1.0, "acc": score, "average_acc": score},
        "best": {"epoch": 1, "val_acc": score + 0.01},
        "wall_seconds": 1.0,
    }
    (directory / "result.json").write_text(json.dumps(result))
    with open(directory / "history.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "val_acc"])
        writer.writerows([epoch, score * epoch / epochs] for epoch in range(1, epochs + 1))
    if wrong is not None:
        with open(directory / "predictions.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "true", "predicted"])
            writer.writerows([f"{i}.png", "a", "b" if i in wrong else "a"] for i in range(20))
