"""Libraries without what they tell about themselves."""

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within it nothing is written to stderr, by whatever means, unless it ends with an error."""
    sys.stderr.flush()
    stderr = os.dup(2)
    level = logging.root.manager.disable
    with tempfile.TemporaryFile() as held, warnings.catch_warnings(action="ignore"):
        os.dup2(held.fileno(), 2)
        logging.disable(logging.WARNING)
        failed = True
        try:
            yield
            failed = False
        finally:
            logging.disable(level)
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            if failed:
                held.seek(0)
                os.write(2, held.read())
