"""The scripts on a folder of images with a hierarchy of its classes, as a user runs them."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from .programs import THIN, run

COLOURS = {
    "crow": (20, 20, 30),
    "raven": (60, 60, 80),
    "robin": (200, 80, 40),
    "wren": (150, 110, 70),
}
HIERARCHY = """bird
    corvid
        crow
        raven
    songbird
        robin
        wren
"""


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    """Ten images of each of four colours, one damaged, and a hierarchy of the classes."""
    root = tmp_path_factory.mktemp("birds")
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / "images" / name).mkdir(parents=True)
        for i in range(10):
            pixels = np.clip(rng.normal(colour, 30, (20, 24, 3)), 0, 255).astype("uint8")
            Image.fromarray(pixels).save(root / "images" / name / f"{i}.png")
    (root / "images" / "crow" / "3.png").write_bytes(b"no image")
    (root / "birds.txt").write_text(HIERARCHY)
    return root


def test_from_images_to_hierarchical_scores(birds):
    data = ["--dataset", "folder", "--data_root", birds / "images", "--test_fraction", 0.3]
    done = run("learn_classifier.py", *data, "--check_data", status=1)
    assert done.stdout.splitlines()[-1] == "folder: 1 of 40 images cannot be read"
    assert "3.png" in done.stdout

    training = [*data, *"--image_size 16 --epochs 2 --batch_size 10 --cls_weight 0.5".split()]
    training += ["--embedding", f"hierarchy:{birds / 'birds.txt'}", "--cache_dir", birds / "cache"]
    done = run("learn_classifier.py", *training, status=1)
    assert "1 of 40 images cannot be used" in done.stderr

    training += [
        "--architecture",
        "fast-cnn",
        "--skip_bad_images",
        "--log_dir",
        birds / "log",
        "--split_seed",
        3,
    ]
    training += ["--validation_fraction", 0.25]
    run("-c", THIN, *training, "--model_dump", birds / "log" / "m.keras")
    result = json.loads((birds / "log" / "result.json").read_text())
    assert result["dataset"]["skipped_images"] == 1
    counts = result["dataset"]
    assert counts["train_images"] + counts["validation_images"] + counts["test_images"] == 39
    assert counts["validation_images"] == 7
    assert result["selected_on"] == "validation"
    assert result["test"]["n"] == counts["test_images"]
    assert result["test"]["test_acc"] == result["final"]["acc"]

    evaluation = ["--model", birds / "log" / "m.keras", *data, "--skip_bad_images"]
    evaluation += ["--hierarchy", birds / "birds.txt", "--str_ids", "--json", birds / "s.json"]
    run("evaluate_classifier.py", *evaluation)
    [row] = json.loads((birds / "s.json").read_text())["models"]
    # The same images were drawn for the test, without being told the seed.
    assert row["acc"] == pytest.approx(result["final"]["acc"], abs=1e-6)
    assert row["loss"] == pytest.approx(result["final"]["loss"], rel=1e-4)
    # d is 0, 1/2 or 1, and a mistake is 1 or 2 levels high.
    wrong = 1 - row["acc"]
    assert row["hierarchical_accuracy"] == pytest.approx(1 - wrong * row["mistake_severity"] / 2)
    assert {"crm_accuracy", "crm_hierarchical_accuracy"} <= set(row)

    done = run("evaluate_classifier.py", *evaluation, "--test_fraction", 0.5, status=2)
    assert "was trained with 0.3" in done.stderr

    # Other images, of which none was trained on, need no split; the same ones would.
    options = ["--model", birds / "log" / "m.keras", "--dataset", "folder", "--skip_bad_images"]
    done = run("evaluate_classifier.py", *options, "--data_root", birds / "images", status=2)
    assert "--test_fraction is missing" in done.stderr
    shutil.copytree(birds / "images" / "wren", birds / "new" / "Test" / "wren")
    run(
        "evaluate_classifier.py", *options, "--data_root", birds / "new", "--json", birds / "n.json"
    )
    [row] = json.loads((birds / "n.json").read_text())["models"]
    assert 0 <= row["acc"] <= 1
