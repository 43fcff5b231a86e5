"""Reading in a process of its own, with limits."""

import os
import subprocess
import sys
import tempfile
from typing import Any

from foreign_files.arrays import load_npz
from foreign_files.regular import check_regular
from utils import UserError

# Seconds; the largest networks' weights take a few.
READ_TIMEOUT = 60


def read_isolated(
    program: str, path: str | os.PathLike, *arguments: str, kind: str
) -> dict[str, Any]:
    """Reads a foreign file in a process of its own, which may crash, hang or run out of memory.

    Args:
        program: A Python file that needs nothing of this project; it is run with the path, the
            `.npz` it is to write, and the arguments. Its last line on stderr says what is wrong.
        path: The file.
        *arguments: More arguments.
        kind: What the file should be, for messages.

    Returns:
        The arrays that it wrote.

    Raises:
        UserError: The file cannot be read.
    """
    check_regular(path)
    try:
        open(path, "rb").close()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    with tempfile.TemporaryDirectory() as directory:
        output = os.path.join(directory, "arrays.npz")
        command = [sys.executable, "-I", program, os.path.abspath(path), output, *arguments]
        try:
            # Of many threads each would reserve memory, of which the program allows itself little.
            done = subprocess.run(
                command,
                capture_output=True,
                timeout=READ_TIMEOUT,
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"{path}: damaged: reading it does not come to an end") from None
        if done.returncode:
            text = done.stderr.decode(errors="replace") if done.returncode == 1 else ""
            reason = "".join(text.strip().splitlines()[-1:])
            raise UserError(
                f"{path}: damaged or not a {kind} ({reason[:300] or 'reading it fails'})"
            )
        return load_npz(output, [])
