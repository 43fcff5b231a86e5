"""README.md and docs/: links lead somewhere, commands pass the checks of their arguments."""

import argparse
import importlib
import re
import runpy
import shlex
from collections import Counter
from pathlib import Path

import pytest

from datasets import registry
from training.devices.flags import check_process_arguments
from training.flags import arguments

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What the pages take as given. Whatever else a command reads, an earlier one on its page writes.
GIVEN = (
    "M.keras", "photo.jpg", "more_photos/1.jpg", "my_images/crow/1.jpg", "my_images/wren/1.jpg",
    "H.txt", "best.args", "nouns.txt", "OLD.pickle",
    "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
)  # fmt: skip
# The flags that name what a command writes.
WRITTEN = ("model_dump", "plain_dump", "weight_dump", "feature_dump", "out", "json", "plot")


def parametrize_pages():
    return pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", without_blocks(text))


def links(page: Path) -> list[str]:
    """The targets of a page's links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text()))


def anchors(page: Path) -> set[str]:
    """What links to the headings of a page end in, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(page.read_text()), re.M)
    return {re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-")) for heading in headings}


@parametrize_pages()
def test_links_lead_somewhere(page):
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_is_linked_from_the_readme():
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in links(PAGES[0])}
    assert [page.name for page in PAGES[1:] if page not in linked] == []


@parametrize_pages()
def test_files_of_the_code_are_where_the_page_says(page):
    named = re.findall(r"`([\w/]+/[\w.]*)`", without_blocks(page.read_text()))
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir()}
    files = {name for name in named if name.partition("/")[0] in rooms}
    assert [name for name in files if not (ROOT / name).exists()] == []


def test_the_readme_is_short():
    assert len(PAGES[0].read_text().splitlines()) <= 200


def test_no_sentence_is_there_twice():
    sentences = Counter(
        sentence
        for page in PAGES
        for paragraph in re.split(r"\n\s*\n", without_code(page.read_text()))
        for sentence in re.split(r"(?<=[.:])\s", " ".join(paragraph.split()))
        if len(sentence.split()) >= 6
    )
    assert [sentence for sentence, count in sentences.items() if count > 1] == []


def shell_blocks(page: Path) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.M | re.S)
    return [block for language, block in blocks if language in ("", "bash", "sh", "shell")]


def commands(page: Path) -> list[tuple[dict[str, str], list[str]]]:
    """The calls of Python scripts in a page's shell blocks: environment, script and arguments.

    Variables have the value that the page gives them, in a loop the first one.
    """
    found = []
    variables = {"DSROOT": "data"}
    for block in shell_blocks(page):
        for line in block.replace("\\\n", " ").splitlines():
            line = re.sub(r"(^|\s)#.*", "", line).strip()
            for name, value in variables.items():
                line = line.replace(f"${name}", value)
            if loop := re.match(r"for (\w+) in (\S+)", line):
                variables[loop[1]] = loop[2]
            elif call := re.fullmatch(r"((?:\w+=\S+ )*)(?:srun )?python (\S+\.py.*)", line):
                environment = dict(pair.split("=", 1) for pair in call[1].split())
                # What follows a redirection or a pipe is another program's.
                found.append((environment, shlex.split(re.split(r"\s(?:2?>|\|)", call[2])[0])))
            elif assignment := re.fullmatch(r"(\w+)=(.*)", line):
                variables[assignment[1]] = " ".join(shlex.split(assignment[2]))
    return found


def check(script: str, argv: list[str], monkeypatch) -> argparse.Namespace:
    """The arguments of a command, checked as its script checks them before it does anything."""
    monkeypatch.setattr("sys.argv", [script, *argv])
    if script == "learn_classifier.py":
        args = arguments.training_parser().parse_args()
        check_process_arguments(args)
        return arguments.check_training_arguments(args)
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    if hasattr(module, "parse_arguments"):
        return module.parse_arguments()
    return parsed_by(module.main, monkeypatch)


def parsed_by(main, monkeypatch) -> argparse.Namespace:
    """What `main` has its parser make of the command line; the rest of it does not run."""
    parse = argparse.ArgumentParser.parse_args

    class Parsed(Exception):
        pass

    def parse_only(parser):
        raise Parsed(parse(parser))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    with pytest.raises(Parsed) as parsed:
        main()
    return parsed.value.args[0]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A current directory with what the pages take as given, and the files of every data set."""
    files = {file for info in registry._INFOS for file in info.files}
    for name in (*GIVEN, *(f"data/{file}" for file in files)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("embeddings", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)


@parametrize_pages()
def test_commands_pass_the_checks_of_their_arguments(page, workplace, monkeypatch):
    found = commands(page)
    assert len(found) == sum(block.count("python ") for block in shell_blocks(page))
    for environment, (script, *argv) in found:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            args = check(script, argv, patch)
        for flag in WRITTEN:
            if isinstance(path := getattr(args, flag, None), str):
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(path).touch()


@pytest.mark.parametrize(
    "script",
    sorted({name for page in PAGES for name in re.findall(r"python (\w+\.py)", page.read_text())}),
)
def test_scripts_do_something_when_they_are_called(script, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [script, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert ended.value.code in (0, None)
    assert f"usage: {script}" in capsys.readouterr().out
