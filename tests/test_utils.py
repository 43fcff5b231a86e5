import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import foreign_files
import utils
from datasets.sources import files
from embeddings.hierarchy_files import read_hierarchy
from foreign_files import image_files
from training.resuming import snapshots
from utils import UserError

from .mutating import limited

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


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_arrays_are_read(tmp_path, protocol):
    content = {
        b"data": np.arange(6, dtype="uint8").reshape(2, 3),
        b"names": [b"a", "b"],
        b"mean": np.float32(0.5),
        b"set": {1, 2},
    }
    path = tmp_path / "file"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    read = foreign_files.load_pickle(path)
    np.testing.assert_array_equal(read.pop(b"data"), content.pop(b"data"))
    assert read == content


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_hostile_pickle_is_refused(tmp_path):
    path, trace = tmp_path / "file", tmp_path / "trace"
    path.write_bytes(pickle.dumps({"data": Hostile(trace)}))
    with pytest.raises(UserError, match=r"file: refused: it asks for _?io\.open"):
        foreign_files.load_pickle(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "global_name",
    ["os system", "builtins eval", "builtins getattr", "numpy load", "functools partial"],
)
def test_other_globals_are_refused(tmp_path, global_name):
    path = tmp_path / "file"
    module, name = global_name.split()
    path.write_bytes(f"c{module}\n{name}\n.".encode())
    with pytest.raises(UserError, match=f"{module}.{name}"):
        foreign_files.load_pickle(path)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02Nr\xff\xff\xff\x0f.",  # memorises None as object 2^28 - 1
        b"Np268435455\n.",
        b"\x80\x04\x95\xff\xff\xff\xff\x00\x00\x00\x00N.",  # a frame of 4 GiB
        b"\x80\x04\x8e\xff\xff\xff\xff\x00\x00\x00\x00N.",  # as many bytes
        b"\x80\x02X\xff\xff\xff\xffN.",  # as many characters
        # An array of 2^30 bytes that are not in the file.
        b"cnumpy\nndarray\n(I1073741824\ntR.",
        b"\x80\x02cnumpy\nndarray\nJ\x00\x00\x00\x40\x85\x81.",
    ],
)
def test_a_small_pickle_cannot_fill_the_memory(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UserError, match="file: damaged or not a pickle"), limited():
        foreign_files.load_pickle(path)


def test_a_declared_array_is_as_large_as_its_content(tmp_path):
    path = tmp_path / "file"
    size = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nJ\x00\x00\x00\x40\x85"
    path.write_bytes(size + b"U\x01b\x87R.")
    assert foreign_files.load_pickle(path).size == 0


def test_other_codecs_than_picklers_use_are_refused(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"c_codecs\nencode\n(Vab\nVhex\ntR.")
    with pytest.raises(UserError, match=r"file: damaged .*bytes in the encoding 'hex'"):
        foreign_files.load_pickle(path)


@pytest.fixture
def pipe(tmp_path):
    """A named pipe that nothing is written to, and an alarm for who reads it all the same."""

    def ring(*_):
        raise AssertionError("it waits for a pipe")

    os.mkfifo(tmp_path / "file")
    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(20)
    yield tmp_path / "file"
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


READERS = {
    "pickle": foreign_files.load_pickle,
    "npz": lambda path: foreign_files.load_npz(path, []),
    "isolated": lambda path: foreign_files.read_isolated("none.py", path, kind="z"),
    "lines": files.read_lines,
    "image": image_files.load_rgb,
    "image_size": image_files.image_size,
    "hierarchy": read_hierarchy,
    "snapshot": snapshots.read,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_pipes_and_devices_are_refused(pipe, read):
    with pytest.raises(UserError, match=r"file: a pipe, socket or device; expected"):
        read(pipe)
    pipe.with_name("link").symlink_to("/dev/zero")
    with pytest.raises(UserError, match="link: a pipe, socket or device"):
        read(pipe.with_name("link"))
    with pytest.raises(UserError, match="Is a directory"):
        read(pipe.parent)


@pytest.mark.parametrize("content", [b"", b"\x80", b"no pickle", b"\x80\x04\x95\xff\xff\xff\xff"])
def test_damaged_pickles_are_named(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UserError, match="file: damaged or not a pickle"):
        foreign_files.load_pickle(path)
    with pytest.raises(UserError, match=r"absent: No such file"):
        foreign_files.load_pickle(tmp_path / "absent")


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        ("utils.UserError('model.keras: damaged')", 1, "error: model.keras: damaged"),
        ("utils.UsageError('--epochs 0:\\nexpected more')", 2, "error: --epochs 0: expected more"),
        ("KeyboardInterrupt", 130, "interrupted"),
    ],
)
def test_user_errors_are_one_line_and_a_status(raised, status, line):
    script = f"import utils\ndef main():\n    raise {raised}\nutils.run_script(main)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status
    assert done.stderr.strip().endswith(line)
    assert done.stderr.count("\n") == 1


def test_one_line_is_short_and_printable():
    assert utils.one_line(UserError("a\n b\tLöwe")) == "a b Löwe"
    assert utils.one_line(UserError("a\x1b[31m\x00b")) == "a?[31m?b"
    line = utils.one_line(UserError("begin " + "9" * 5000 + " end"))
    assert len(line) < 1000
    assert line.startswith("begin 9")
    assert line.endswith("9 end")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import os; os.abort()", r"reading it fails"),
        ("import sys; print('first\\nsecond', file=sys.stderr); sys.exit(1)", r"second"),
        ("import sys; sys.exit(3)", "reading it fails"),
        ("import sys; open(sys.argv[2], 'w').write(sys.argv[3])", "arrays.npz: damaged"),
        ("import time; time.sleep(60)", "does not come to an end"),
    ],
)
def test_what_an_isolated_reader_does_is_a_message(tmp_path, monkeypatch, program, reason):
    if "sleep" in program:
        monkeypatch.setattr("foreign_files.isolation.READ_TIMEOUT", 0.5)
    (tmp_path / "program.py").write_text(program)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=reason):
        foreign_files.read_isolated(tmp_path / "program.py", tmp_path / "file", "y", kind="z")


def test_an_isolated_reader_hands_on_arrays(tmp_path):
    (tmp_path / "program.py").write_text(
        "import sys, numpy as np\n"
        "source, target, name = sys.argv[1:]\n"
        "np.savez(target, **{name: np.frombuffer(open(source, 'rb').read(), np.uint8)})\n"
    )
    (tmp_path / "file").write_bytes(b"\1\2")
    arrays = foreign_files.read_isolated(tmp_path / "program.py", tmp_path / "file", "y", kind="z")
    assert {name: array.tolist() for name, array in arrays.items()} == {"y": [1, 2]}


def test_an_absent_file_is_named_before_a_process_is_started(tmp_path):
    with pytest.raises(UserError, match=r"absent: No such file or directory$"):
        foreign_files.read_isolated("none.py", tmp_path / "absent", kind="z")


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
