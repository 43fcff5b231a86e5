"""What is written over again on a terminal; without Keras."""

import shutil
from typing import TextIO


def duration(seconds: float) -> str:
    """A length of time in words, to two units: `45 s`, `12 min 5 s`, `3 h 20 min`, `2 d 4 h`."""
    seconds = round(seconds)
    units = [("d", 86400), ("h", 3600), ("min", 60), ("s", 1)]
    parts = []
    for name, length in units:
        count, seconds = divmod(seconds, length)
        if count or parts or length == 1:
            parts.append(f"{count} {name}")
    return " ".join(part for part in parts[:2] if not part.startswith("0 ")) or "0 s"


def write_over(text: str, terminal: TextIO) -> None:
    """Writes a line in place of the one before; an empty text leaves none."""
    # One column less than there are: some terminals wrap a full line.
    width = max(1, shutil.get_terminal_size().columns - 1)
    terminal.write(f"\r{text[:width]}\x1b[K")
    terminal.flush()
