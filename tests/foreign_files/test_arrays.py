import zipfile

import numpy as np
import pytest

from foreign_files import load_npz
from utils import UserError


def test_reads_arrays_and_names_what_is_missing(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(3), y=np.array("text"))
    arrays = load_npz(path, ["x"])
    np.testing.assert_array_equal(arrays["x"], [0, 1, 2])
    assert str(arrays["y"]) == "text"
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


def test_a_small_file_cannot_fill_the_memory(tmp_path):
    """Zeros shrink a thousandfold; what is declared is compared before anything is unpacked."""
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(2**20))
    content = path.read_bytes()
    # The size stands in the central directory: claim 2 GiB.
    at = content.index(b"PK\x01\x02") + 24
    path.write_bytes(content[:at] + (2**31).to_bytes(4, "little") + content[at + 4 :])
    with pytest.raises(UserError, match=r"a\.npz: damaged .* take 2 GiB of memory"):
        load_npz(path, ["x"])
