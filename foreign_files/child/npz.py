"""Reads `.npz` archives of plain arrays, without NumPy, which makes any array that one declares."""

import ast
import zipfile


def read(source):
    """All arrays in the file."""
    with zipfile.ZipFile(source) as archive:
        return {
            member.filename.removesuffix(".npy"): _array(archive.read(member))
            for member in archive.infolist()
        }, {}


def _array(content):
    """Type, shape, order and bytes of an array in NumPy's format (`numpy.lib.format`)."""
    if content[:6] != b"\x93NUMPY":
        raise ValueError("a member is no array")
    start = 10 if content[6] == 1 else 12
    end = start + int.from_bytes(content[8:start], "little")
    if end - start > 10_000:
        raise ValueError("an array's header is too long")
    header = ast.literal_eval(content[start:end].decode("latin1").strip())
    order = "F" if header["fortran_order"] else "C"
    return str(header["descr"]), header["shape"], order, memoryview(content)[end:]
