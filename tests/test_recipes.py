"""The argument files in `recipes/`: every one is a training that can begin."""

import re
import shlex
from pathlib import Path

import keras
import numpy as np
import pytest

import learn_classifier
from training import data
from training.flags import arguments

from .datasets.conftest import cifar_batch, write_photo, write_pickle
from .shallow import make_shallow

ROOT = Path(__file__).parents[1]
RECIPES = sorted(ROOT.glob("recipes/*.args"))
PAPER = {"paper-cross-entropy", "paper-cosine", "paper-cosine-xent", "paper-cifar"}


def header(recipe: Path) -> str:
    """The comment that the file begins with, as one text."""
    lines = recipe.read_text().splitlines()
    end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line.removeprefix("#").strip() for line in lines[:end])


def command(recipe: Path) -> list[str]:
    """The arguments of the command in the header."""
    text = header(recipe).replace("\\\n", "")
    found = re.search(r"^Use: python learn_classifier\.py (.*)$", text, re.MULTILINE)
    assert found, f"{recipe.name}: no command"
    return shlex.split(found[1])


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """What the commands call the places of their data."""
    root = tmp_path_factory.mktemp("data")
    for part in ("train", "test"):
        for name in ("crow", "raven"):
            for number in (1, 2):
                write_photo(root / "my_images" / part / name / f"{number}.jpg", 40, 30)
    (root / "DIR" / "images").mkdir(parents=True)
    for name in ("images", "image_class_labels", "train_test_split", "classes"):
        (root / "DIR" / f"{name}.txt").touch()
    for name in ("train", "test"):
        write_pickle(root / "DIR" / name, cifar_batch([0, 0, 1, 1], "fine_labels"))
    return {"my_images": str(root / "my_images"), "DIR": str(root / "DIR")}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_training_that_can_begin(recipe, roots, monkeypatch):
    monkeypatch.chdir(ROOT)
    given = [roots.get(word, word) for word in command(recipe)]
    assert f"@recipes/{recipe.name}" in given
    args = arguments.training_parser().parse_args(given)
    arguments.check_training_arguments(args)
    assert (args.epochs is None) == bool(args.images_seen)
    # The paper's recipes are the defaults of its commands, and only those. Its augmentation of
    # digits is the best there is here.
    assert (args.augmentation == "paper") == (recipe.stem in PAPER | {"digits"})
    assert (args.lr_schedule == "SGDR") == (recipe.stem in PAPER)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_trains_its_network(recipe, roots, monkeypatch):
    monkeypatch.chdir(ROOT)
    make_shallow(monkeypatch)
    given = [roots.get(word, word) for word in command(recipe)]
    if "CUB" in given:
        given += ["--dataset", "folder", "--data_root", roots["my_images"]]
    given += "--image_size 32 --batch_size 2 --gpus 1 --read_workers 1 --cache none".split()
    args = arguments.check_training_arguments(arguments.training_parser().parse_args(given))
    dataset = data.load_dataset(args)
    if len(dataset.train) > 4:
        dataset.train = dataset.train.take(np.arange(4))
    batches = data.make_batches(args, dataset)
    keras.config.set_dtype_policy(args.precision)
    try:
        model = learn_classifier.build_classifier(args, dataset)
    finally:
        keras.config.set_dtype_policy("float32")
    model.run_eagerly = True  # compiling takes longer than two steps
    before = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    model.optimizer.learning_rate = 1e-3
    losses = model.fit(batches.train, verbose=0, shuffle=False).history["loss"]
    assert np.isfinite(losses).all()
    after = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    assert all(np.isfinite(new).all() for new in after)
    # Of some the steps are smaller than a float32 resolves.
    changed = [not np.array_equal(old, new) for old, new in zip(before, after, strict=True)]
    assert np.mean(changed) > 0.8


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_what_it_is_for_and_what_to_expect(recipe):
    first = header(recipe).splitlines()[0]
    assert re.search(r"accuracy not measured yet\.$|\d+(\.\d+)? %", first), first


def test_the_documentation_names_every_recipe():
    page = (ROOT / "docs/best-from-few-images.md").read_text()
    named = set(re.findall(r"recipes/([\w-]+)\.args", page))
    assert named == {path.stem for path in RECIPES}
    assert named > PAPER
