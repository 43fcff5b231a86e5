"""HDF5 and MATLAB files that were made to take memory, or never to end."""

import resource
import struct
import zlib

import h5py
import numpy as np
import pytest
import scipy.io

from datasets.sources import files
from foreign_files import load_weights
from utils import UserError

from ..mutating import assert_one_line


def test_a_process_that_reads_in_vain_says_why_in_one_line(tmp_path):
    path = tmp_path / "w.weights.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n not HDF5")
    with pytest.raises(UserError) as error:
        load_weights(path)
    assert_one_line(error.value, path.name)


def chunk_of_many(file):
    variables = file.create_group("layers/conv/vars")
    chunks = {"maxshape": (None,), "chunks": (2**27,), "compression": "gzip"}
    dataset = variables.create_dataset("0", (1,), "float32", **chunks)
    dataset.id.write_direct_chunk((0,), zlib.compress(bytes(2**29), 1))


def many_names(file):
    variables = file.create_group("layers/conv/vars")
    variables.attrs.create("name", ["conv", "conv"], dtype=h5py.string_dtype())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (chunk_of_many, ""),
        (many_names, "name of conv is not a single one"),
    ],
)
def test_hdf5_that_takes_more_memory_than_it_declares_is_refused(tmp_path, make, reason):
    with h5py.File(tmp_path / "w.h5", "w", libver="latest") as file:
        make(file)
    with pytest.raises(UserError, match=rf"w\.h5: damaged .*{reason}"):
        load_weights(tmp_path / "w.h5")


def test_names_that_are_all_the_same_huge_one_are_refused(tmp_path):
    path = tmp_path / "w.h5"
    names = ["x" * 2**22, *["y"] * 2000]
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs.create("layer_names", names, dtype=h5py.string_dtype())
    content = path.read_bytes()
    # Each name is its length, and the address and number of its text.
    first = content.index(struct.pack("<I", 2**22))
    while struct.unpack_from("<I", content, first + 16) != (1,):
        first = content.index(struct.pack("<I", 2**22), first + 1)
    huge = content[first : first + 16]
    path.write_bytes(content[:first] + huge * len(names) + content[first + 16 * len(names) :])
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    with pytest.raises(UserError, match=r"w\.h5: damaged"):
        load_weights(path)
    # In kilobytes, where the names together take eight gigabytes.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < max(before, 2**20) + 2**16


def test_matlab_arrays_are_not_unpacked_before_their_size_is_known(tmp_path):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"labels": np.arange(9, dtype=np.uint8)})
    # The dimensions follow the header of 128 bytes and four tags.
    content = bytearray(path.read_bytes())
    assert struct.unpack_from("<ii", content, 160) == (1, 9)
    struct.pack_into("<i", content, 164, 2**31 - 1)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.mat: damaged or not a MATLAB file"):
        files.read_mat(path, "labels")
