import contextlib
import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import utils
from utils import UserError

ROOT = Path(__file__).parents[1]


def test_printable_keeps_letters_and_spaces_only():
    assert utils.printable("Löwe\u202f日本\u3000.jpg") == "Löwe\u202f日本\u3000.jpg"
    assert utils.printable("\x1b]0;x\x07\x9b\t\n\u202e\udcff") == "?]0;x" + "?" * 6


def test_nearest_names():
    assert utils.nearest_names("cifar-10", ["CIFAR-100", "CUB", "digits"]) == (
        "did you mean CIFAR-100?"
    )
    assert utils.nearest_names("xyz", ["CUB", "Cars"]) == "known: CUB, Cars"


def test_a_file_appears_whole(tmp_path):
    target = tmp_path / "result.weights.h5"
    with utils.atomic_path(target) as path:
        assert path.name.endswith(".weights.h5")
        path.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.weights.h5"]
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize(
    "name", ["a" * 249 + ".keras", "é" * 120 + ".weights.h5", "a." + "b" * 253]
)
def test_a_name_of_any_length_can_be_written(tmp_path, name):
    with utils.atomic_path(tmp_path / name) as path:
        assert path.name.endswith((".keras", ".weights.h5")) or len(path.name) < 100
        path.write_text("whole")
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "model.keras"
    target.write_text("old")

    def write():
        with utils.atomic_path(target) as path:
            path.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert target.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.keras"]


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        ("utils.UserError('model.keras: damaged')", 1, "error: model.keras: damaged"),
        ("utils.UsageError('--epochs 0:\\nexpected more')", 2, "error: --epochs 0: expected more"),
        ("KeyboardInterrupt", 130, "interrupted"),
        ("MemoryError", 1, "error: not enough memory; free some, or take smaller batches, images"),
        ("MemoryError('Unable to allocate 9 GiB')", 1, "memory (Unable to allocate 9 GiB); free"),
        ("ImportError('first\\nlibx.so: failed to map', name='x')", 1, "memory? (first libx.so: "),
        ("ModuleNotFoundError(name='none')", 1, "the Python package none is not installed: "),
        ("OSError(28, 'No space left', 'a\\x1b[2J\\nb')", 1, "error: a?[2J?b: No space left"),
    ],
)
def test_user_errors_are_one_line_and_a_status(raised, status, line):
    script = f"import utils\ndef main():\n    raise {raised}\nutils.run_script(main)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status
    assert line in done.stderr
    assert done.stderr.count("\n") == 1


def test_one_line_is_short_and_printable():
    assert utils.one_line(UserError("a\n b\tLöwe")) == "a b Löwe"
    assert utils.one_line(UserError("a\x1b[31m\x00b")) == "a?[31m?b"
    line = utils.one_line(UserError("begin " + "9" * 5000 + " end"))
    assert len(line) < 1000
    assert line.startswith("begin 9")
    assert line.endswith("9 end")


def test_what_a_killed_process_left_is_removed_a_day_later(tmp_path):
    target = tmp_path / "a.b.csv"
    with utils.atomic_path(target) as temporary:
        old = tmp_path / re.sub("-.{8}", "-aaaa_111", temporary.name)
        temporary.write_text("first")
    young = tmp_path / re.sub("-.{8}", "-bbbb_222", old.name)
    others = [
        tmp_path / name
        for name in (
            ".c.partial-aaaa_111.b.csv",
            ".a.partial-aaaa_111.b.txt",
            ".a.partial-aaaa_1112.b.csv",
            ".a.20260101.b.csv",
            "a.b.csv.partial",
        )
    ]
    for path in (old, young, *others):
        path.write_text("x")
        os.utime(path, (0, 0))
    os.utime(young)
    with utils.atomic_path(target) as temporary:
        temporary.write_text("second")
    assert target.read_text() == "second"
    assert set(tmp_path.iterdir()) == {young, *others, target}


def test_names_from_outside_cannot_speak_to_the_terminal():
    script = (
        "import logging, utils\n"
        "def main():\n"
        "    utils.say('Löwe 日本', 'a\\x1b[2J\\nb\\udcff', sep='\\t')\n"
        "    logging.getLogger('datasets').warning('left out: %s', 'a\\x1b]0;x\\x07\\r\\nb')\n"
        "    print('Löwe')\n"
        "utils.run_script(main)"
    )
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert done.stdout == "L\\xf6we \\u65e5\\u672c\ta?[2J?b?\nL\\xf6we\n"
    assert done.stderr == "left out: a?]0;x???b\n"
    assert done.returncode == 0


@pytest.mark.parametrize(("options", "status"), [("", 1), (", only_reports=True", 0)])
def test_a_script_goes_on_where_its_output_cannot_be_written(tmp_path, options, status):
    script = (
        "import sys, utils\n"
        "from pathlib import Path\n"
        "def main():\n"
        "    for _ in range(3):\n"
        "        print('lost', flush=True)\n"
        f"    Path({str(tmp_path / 'kept')!r}).touch()\n"
        f"utils.run_script(main{options})"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (tmp_path / "kept").exists()
    assert done.stderr == (
        "-c: warning: the output cannot be written (No space left on device); what follows is not "
        "all shown\n"
    )
    assert done.returncode == status


def test_errors_have_their_status_where_they_cannot_be_written():
    script = "import utils\ndef main():\n    raise utils.UsageError('x')\nutils.run_script(main)"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stderr=full)
    assert done.returncode == 2


def test_scripts_say_in_one_line_what_they_cannot_import(tmp_path):
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError(name='numpy')")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    scripts = [path for path in ROOT.glob("*.py") if "run_script(main" in path.read_text()]
    scripts = [path for path in scripts if path.name not in ("utils.py", "report.py")]
    assert len(scripts) > 6
    processes = [
        subprocess.Popen(
            [sys.executable, path], stderr=-1, text=True, env=environment, cwd=tmp_path
        )
        for path in scripts
    ]
    for path, process in zip(scripts, processes, strict=True):
        assert process.communicate()[1].splitlines() == [
            f"{path.name}: error: the Python package numpy is not installed: pip install -r "
            "requirements.txt (with KERAS_BACKEND=jax: requirements-jax.txt)"
        ]
        assert process.returncode == 1


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_pipe_that_nobody_reads_ends_a_script_quietly(stream):
    script = (
        "import sys, utils\n"
        "def main():\n"
        f"    print('x' * 9, file=sys.{stream}, flush=True)\n"
        "utils.run_script(main)"
    )
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, **{stream: write})
    os.close(write)
    assert process.wait() == 1


def test_errors_of_the_published_loop_are_seen_on_the_terminal(tmp_path):
    loop = (
        f"for LR in 1; do {sys.executable} {ROOT}/learn_classifier.py --dataset CIFAR-100 "
        "--data_root nowhere --sgdr_max_lr $LR 2>/dev/null | tee -a printed "
        "| grep -oP 'val_(prob_)?acc: \\K([0-9.]+)' >> numbers; done"
    )
    child, terminal = pty.fork()
    if not child:
        os.chdir(tmp_path)
        os.execv("/bin/sh", ["sh", "-c", loop])
    shown = b""
    with contextlib.suppress(OSError):  # its end
        while part := os.read(terminal, 10_000):
            shown += part
    os.close(terminal)
    os.waitpid(child, 0)
    lines = (tmp_path / "printed").read_text().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("learn_classifier.py: error: --data_root nowhere: does not exist")
    assert shown.decode().split("\r\n") == [*lines, ""]
    assert (tmp_path / "numbers").read_text() == ""


def test_default_directory_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert utils.user_cache_dir().parent == tmp_path
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert utils.user_cache_dir().parent == Path.home() / ".cache"


def test_users_without_a_directory(monkeypatch):
    """Containers may run as a user whom neither HOME nor passwd knows."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert utils.user_cache_dir().parent == Path(tempfile.gettempdir())
