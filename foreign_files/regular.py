"""What can be said of a file before it is read."""

import os
import stat

from utils import UserError


def check_regular(path: str | os.PathLike) -> None:
    """Refuses pipes, sockets and devices, reading which may not come to an end.

    Raises:
        UserError: It is one of them, or there is no such file.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:  # a name with a zero byte is no name
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: {reason}") from None
    # Opening a directory fails at once and says so.
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UserError(f"{path}: a pipe, socket or device; expected a regular file")
