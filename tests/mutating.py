"""Broken and hostile versions of files, and limits for reading them."""

import contextlib
import itertools
import os
import random
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import utils

# What a file may take beyond what the process has; threads reserve some without using it.
_MEMORY = 4 * 2**30


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Ends the tests where a file makes the program hang, and refuses it enormous memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _MEMORY, before[1]))
    signal.alarm(60)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, before)


def mutations(content: bytes, draw: random.Random, count: int = 200) -> Iterator[bytes]:
    """Truncated, empty, of another kind, bit-flipped, with numbers made extreme, and spliced."""
    yield b""
    yield b"\x00" * 100
    yield b"PK\x03\x04 not an archive"
    yield b"\x89HDF\r\n\x1a\n not HDF5"
    for i in range(count):
        mutated = bytearray(content)
        match i % 5:
            case 0:
                del mutated[draw.randrange(len(mutated)) :]
            case 1:
                at = draw.randrange(len(mutated))
                mutated[at] ^= 1 << draw.randrange(8)
            case 2:
                # The headers, where the sizes are.
                at = draw.randrange(min(len(mutated), 2000))
                mutated[at : at + 8] = draw.choice([b"\xff" * 8, b"\x7f" * 8, b"\x00" * 8])
            case 3:
                for _ in range(20):
                    mutated[draw.randrange(len(mutated))] = draw.randrange(256)
            case 4:
                at, to = draw.randrange(len(mutated)), draw.randrange(len(mutated))
                mutated[to : to + 50] = mutated[at : at + 50]
        yield bytes(mutated)


_WORDS = (
    "-1", "0", "7", "1e9", "nan", "1_0", "9" * 25, "9" * 5000, "18446744073709551615", "²", "",
    " ", "/etc/passwd", "../../outside.jpg", "../in.jpg", "/dev/zero", ".", "..", "a\0b", "a/b",
    "x" * 5000,
)  # fmt: skip


def text_mutations(content: bytes, draw: random.Random, count: int = 200) -> Iterator[bytes]:
    """Lines twice, missing, in disorder, and words that are no number, or a path to elsewhere."""
    for i in range(count):
        lines = [line.split(" ") for line in content.decode().splitlines()]
        line = draw.randrange(len(lines))
        match i % 4:
            case 0:
                lines[line][draw.randrange(len(lines[line]))] = draw.choice(_WORDS)
            case 1:
                lines.insert(draw.randrange(len(lines)), lines[line])
            case 2:
                other = draw.randrange(len(lines))
                lines[line][-1], lines[other][-1] = lines[other][-1], lines[line][-1]
            case 3:
                words = [draw.choice(_WORDS) for _ in range(draw.randrange(4))]
                lines[line : line + draw.randrange(2)] = [words]
        yield "\n".join(map(" ".join, lines)).encode()


def assert_one_line(error: Exception, name: str) -> None:
    """The message for the user names the file or the data set, and is short."""
    line = utils.one_line(error)
    assert name in line
    assert len(line) < 1000


def read_mutated(path: Path, read: Callable[[], object], name: str = "", known: str = "") -> None:
    """Lets a file be read in hundreds of mutations: each is read, or refused in one line.

    Args:
        path: The file. What else is beside it, or in the working directory, must stay as it is.
        read: Reads it.
        name: What the messages must name.
        known: A file or directory beside it that reading may make.
    """
    content = path.read_bytes()
    draw = random.Random(0)
    kinds = [mutations(content, draw)]
    if path.suffix == ".txt":
        kinds.append(text_mutations(content, draw))

    def files() -> set[str]:
        found = {str(file) for place in (path.parent, ".") for file in Path(place).rglob("*")}
        return {file for file in found if not known or known not in file.split(os.sep)}

    read()
    before = files()
    refused = 0
    for mutated in itertools.chain(*kinds):
        path.write_bytes(mutated)
        try:
            with limited():
                read()
        except utils.UserError as error:
            refused += 1
            assert_one_line(error, name)
    assert refused >= 4
    assert files() == before
