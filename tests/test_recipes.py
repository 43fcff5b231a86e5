"""The argument files in `recipes/`: every one is a training that can begin."""

import re
import shlex
from pathlib import Path

import pytest

from training.flags import arguments

from .datasets.conftest import cifar_batch, write_photo, write_pickle

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
            write_photo(root / "my_images" / part / name / "1.jpg", 40, 30)
    (root / "DIR" / "images").mkdir(parents=True)
    for name in ("images", "image_class_labels", "train_test_split", "classes"):
        (root / "DIR" / f"{name}.txt").touch()
    for name in ("train", "test"):
        write_pickle(root / "DIR" / name, cifar_batch([0], "fine_labels"))
    return {"my_images": str(root / "my_images"), "DIR": str(root / "DIR")}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_training_that_can_begin(recipe, roots, monkeypatch):
    monkeypatch.chdir(ROOT)
    given = [roots.get(word, word) for word in command(recipe)]
    assert f"@recipes/{recipe.name}" in given
    args = arguments.training_parser().parse_args(given)
    arguments.check_training_arguments(args)
    assert (args.epochs is None) == bool(args.images_seen)
    # The paper's recipes are the defaults of its commands, and only those.
    assert (args.augmentation == "paper") == (recipe.stem in PAPER)
    assert (args.lr_schedule == "SGDR") == (recipe.stem in PAPER)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_what_it_is_for_and_what_to_expect(recipe):
    first = header(recipe).splitlines()[0]
    assert re.search(r"accuracy not measured yet\.$|\d+(\.\d+)? %", first), first


def test_the_documentation_names_every_recipe():
    page = (ROOT / "docs/best-from-few-images.md").read_text()
    named = set(re.findall(r"recipes/([\w-]+)\.args", page))
    assert named == {path.stem for path in RECIPES}
    assert named > PAPER
