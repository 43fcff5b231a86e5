"""Text files of strangers."""

import os

from foreign_files.regular import check_regular
from utils import UserError

# The lists of millions of images take less.
_MAX_BYTES = 2**28
_MAX_LINES = 10**7


def read_text(path: str | os.PathLike, max_bytes: int = _MAX_BYTES) -> str:
    """Reads a text file in UTF-8; a byte-order mark, as editors on Windows write it, is left out.

    Raises:
        UserError: The file cannot be read, is too large for a list, or is no UTF-8 text.
    """
    check_regular(path)
    try:
        with open(path, "rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    if len(content) > max_bytes:
        raise UserError(f"{path}: has more than {max_bytes:,} bytes; is it the right file?")
    if content.count(b"\n") + content.count(b"\r") > _MAX_LINES:
        raise UserError(f"{path}: has more than {_MAX_LINES:,} lines; is it the right file?")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8") from None
