"""The one door for files of strangers: what comes through, and what does not."""

import os
import pickle
import signal
import zipfile

import numpy as np
import pytest

import foreign_files
from datasets.sources import files
from embeddings.hierarchy_files import read_hierarchy
from foreign_files import door, image_files, load_npz
from foreign_files.child import program
from training.resuming import snapshots
from utils import UserError

from ..mutating import limited


def test_reads_arrays_and_names_what_is_missing(tmp_path):
    path = tmp_path / "a.npz"
    arrays = {
        "x": np.arange(3),
        "y": np.array("text"),
        "columns": np.asfortranarray(np.ones((2, 3), ">f4")),
        "none": np.zeros((0, 3), bool),
    }
    np.savez(path, **arrays)
    for name, array in load_npz(path, ["x"]).items():
        np.testing.assert_array_equal(array, arrays[name], strict=True)
    with pytest.raises(UserError, match=r"a\.npz: .* has no array z, only x, y"):
        load_npz(path, ["x", "z"])


def test_refuses_what_is_damaged_or_holds_objects(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.array([{}], object))
    with pytest.raises(UserError, match=r"a\.npz: damaged or not an \.npz of plain arrays"):
        load_npz(path, ["x"])
    for content in (b"", b"no archive", path.read_bytes()[:100]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.npz: damaged"):
            load_npz(path, ["x"])
    np.save(tmp_path / "a.npy", np.arange(3))
    with pytest.raises(UserError, match=r"a\.npy: damaged"):
        load_npz(tmp_path / "a.npy", ["x"])
    with pytest.raises(UserError, match="No such file"):
        load_npz(tmp_path / "none.npz", ["x"])


def write_npy(path, descr, shape, content=b""):
    """An `.npz` with one array of any type and shape."""
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", start + header + content)


@pytest.mark.parametrize(
    ("descr", "shape"),
    [
        ("|V0", (500_000_000,)), ("|S0", (500_000_000,)), ("<U0", (500_000_000,)),
        ("|V8", (1,)), ("<U500000000", (1,)), ("<U500000000", (0,)), ("|O", (1,)),
        ([("a", "<f8")], (1,)), ("<f8", (10**12,)), ("<f8", (-1,)), ("<f8", (2**63, 2**63)),
        ("<f8", (1,) * 100), ("<f7", (8,)), ("<f8", "x"),
    ],
)  # fmt: skip
def test_arrays_are_as_large_as_what_the_file_holds(tmp_path, descr, shape):
    write_npy(tmp_path / "a.npz", descr, shape, bytes(56))
    with pytest.raises(UserError, match=r"a\.npz: damaged"), limited():
        load_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("read", [load_npz, lambda path: snapshots.read(path)])
def test_a_small_file_cannot_fill_the_memory(tmp_path, read):
    """Zeros shrink a thousandfold."""
    columns = program.limit(0) // 8 + 1
    write_npy(tmp_path / "a.npz", "|i1", (1, columns), bytes(columns))
    assert (tmp_path / "a.npz").stat().st_size < 2**18
    with pytest.raises(UserError, match=r"a\.npz: damaged .*it declares far larger arrays"):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_arrays_are_read(tmp_path, protocol):
    content = {
        b"data": np.arange(6, dtype="uint8").reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3)),
        "text": np.array(["Löwe", ""]),
        "objects": np.array(["a", "bc"], object),
        b"names": [b"a", "b"],
        "ids": (1, np.int64(2), np.uint8(3)),
        "scores": [0.5, np.float32(0.25)],
        "other": {1, 2},
        "nested": [[1], [2]],
    }
    path = tmp_path / "file"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    read = foreign_files.load_pickle(path)
    np.testing.assert_array_equal(read.pop("data"), content[b"data"], strict=True)
    np.testing.assert_array_equal(read.pop("columns"), content["columns"], strict=True)
    np.testing.assert_array_equal(read.pop("text"), content["text"], strict=True)
    np.testing.assert_array_equal(read.pop("ids"), [1, 2, 3], strict=True)
    np.testing.assert_array_equal(read.pop("scores"), [0.5, 0.25], strict=True)
    assert read == {"objects": ["a", "bc"], "names": ["a", "b"]}


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


RECONSTRUCT = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"


def array_of(kind):
    """A dictionary with an array of half a billion items that take no bytes."""
    dtype = b"cnumpy\ndtype\n(V%b\nI0\nI1\ntR" % kind.encode()
    empty = b"(cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"
    return b"(Vdata\n" + empty[1:] + b"(I1\n(I500000000\nt" + dtype + b"I00\nV\ntbd."


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
        # The same as NumPy writes it; scalars and arrays whose items have no size, or a huge one.
        RECONSTRUCT + b"J\x00\x00\x00\x40\x85U\x01b\x87R.",
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(VV2000000000\nI0\nI1\ntRVx\ntR.",
        *(array_of(kind) for kind in ("V0", "S0", "U0", "V2000000000", "O8")),
    ],
)
def test_a_small_pickle_cannot_fill_the_memory(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UserError, match="file: damaged or not a pickle"), limited():
        foreign_files.load_pickle(path)


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
    "npz": foreign_files.load_npz,
    "mat": foreign_files.load_mat,
    "weights": foreign_files.load_weights,
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


CHILDREN = {
    "import os; os.abort()": "reading it fails",
    "import sys; sys.exit(3)": "reading it fails",
    "pass": "No such file",
    "answer('[]')": "damaged",
    "answer('')": "damaged",
    "answer('{\"error\": \"why\"}')": "damaged .*why",
    """answer('{"texts": {}, "arrays": {"x": ["f8", [2], "C"]}}\\n' + 'x' * 15)""": "far larger",
    "answer('[' * 10**6)": "damaged",
    "import time; time.sleep(60)": "does not come to an end",
}  # fmt: skip


@pytest.mark.parametrize("child", CHILDREN)
def test_whatever_the_child_does_is_a_message(tmp_path, monkeypatch, child):
    monkeypatch.setattr("foreign_files.door.READ_TIMEOUT", 0.5 if "sleep" in child else 60)
    start = "import sys\ndef answer(text):\n    open(sys.argv[3], 'w').write(text)\n"
    (tmp_path / "child.py").write_text(start + child)
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(door.program, "__file__", str(tmp_path / "child.py"))
    with pytest.raises(UserError, match=f"file: .*{CHILDREN[child]}"):
        load_npz(tmp_path / "file")


@pytest.mark.parametrize(
    ("read", "most"), [(files.read_lines, "268,435,456"), (read_hierarchy, "67,108,864")]
)
def test_texts_are_bounded_before_they_are_read(tmp_path, read, most):
    path = tmp_path / "list.txt"
    with open(path, "w") as file:
        file.truncate(2**30)
    with pytest.raises(UserError, match=rf"list\.txt: has more than {most} bytes"), limited():
        read(path)
    path.write_bytes(b"\n" * 10_000_001)
    with pytest.raises(UserError, match=r"list\.txt: has more than 10,000,000 lines"), limited():
        read(path)


def test_texts_are_read_as_editors_write_them(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffLöwe\r\n\r\n a b \rc\n".encode())
    assert files.read_lines(path) == ["Löwe", "", "a b", "c"]
    path.write_bytes("Löwe".encode("latin1"))
    with pytest.raises(UserError, match=r"list\.txt: not a text file in UTF-8"):
        files.read_lines(path)
