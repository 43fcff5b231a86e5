"""Lists of classes, one `ID [NAME]` per line, whose ids may hold spaces."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from datasets.sources.files import read_lines
from foreign_files.lines import is_header, same_name, separated
from utils import UserError, counted, nearest_names

logger = logging.getLogger(__name__)

_Id = TypeVar("_Id", bound=Hashable)
_SHOWN = 3


@dataclass(frozen=True)
class ClassList:
    """The lines of a class list. Which part of a line is the id, only the known ids can tell.

    Attributes:
        path: The file, for messages.
        lines: The number and the text of every line that is neither empty nor a comment (`#`).
    """

    path: str
    lines: tuple[tuple[int, str], ...]

    @property
    def count(self) -> int | None:
        """The number of classes; `None` if the first line may be a header."""
        return None if is_header(self.lines[0][1]) else len(self.lines)

    def match(self, known: Mapping[str, _Id], source: str) -> dict[_Id, str | None]:
        """The classes that the lines name, in their order, each with its name if it has one.

        A line is an id as a whole; or an id, a separator and a name. A tab, a comma, a semicolon
        or double quotes around the id say where it ends; a space does if only one id fits.

        Args:
            known: The classes there are, by their ids as text.
            source: What has these ids, for messages.

        Raises:
            UserError: Lines name no class or the same one, or two ids fit one line.
        """
        known = {same_name(text): class_id for text, class_id in known.items()}
        longest = max(map(len, known), default=0)
        found: dict[_Id, str | None] = {}
        number_of: dict[_Id, int] = {}
        unknown, cut = [], []
        for number, line in self.lines:
            text = same_name(line)
            ids = _fitting(text, known, longest)
            if len(ids) > 1:
                raise UserError(
                    f"{self.path}:{number}: {text!r} may be the class "
                    f"{' or '.join(map(repr, ids))}; put a tab after the id, or quotes around it"
                )
            if not ids:
                if number != self.lines[0][0] or not is_header(line):
                    unknown.append((number, text))
                continue
            [(class_id, name)] = ids.items()
            key = known[class_id]
            if key in found:
                raise UserError(
                    f"{self.path}:{number}: class {class_id} is listed more than once, "
                    f"on line {number_of[key]} too"
                )
            if name and not class_id.isdecimal():
                cut.append((text, class_id))
            found[key], number_of[key] = name, number
        if unknown:
            number, text = unknown[0]
            lines = ", ".join(repr(text) for _, text in unknown[:_SHOWN])
            near = nearest_names(text, known)
            like = f"its ids are like {', '.join(list(known)[:_SHOWN])}"
            if text.startswith("#"):
                like += "; a space after # makes a comment"
            count = counted(len(unknown), "line names", "lines name")
            raise UserError(
                f"{self.path}:{number}: {count} no class of {source}: {lines}"
                f"{', …' if len(unknown) > _SHOWN else ''}; "
                f"{near if near.startswith('did') else like}"
            )
        if cut:
            logger.info(
                "%s: %s an id and a name; of %r the id is %r",
                *(self.path, counted(len(cut), "line has", "lines have"), *cut[0]),
            )
        return found

    def fields(self) -> list[list[str]]:
        """The fields of every line: by tabs, quotes or commas, otherwise by white space."""
        rows = []
        for _, line in self.lines:
            by_comma = [field.strip() for field in re.split("[,;]", line) if field.strip()]
            rows.append(separated(line) or (by_comma if len(by_comma) > 1 else line.split()))
        return rows


def read_class_list(path: str | os.PathLike) -> ClassList:
    """Reads a file of lines `ID [NAME]`.

    Raises:
        UserError: The file cannot be read, is no UTF-8 text, lists no class, or a line twice.
    """
    lines = [
        (number, line)
        for number, line in enumerate(read_lines(path), 1)
        if line and not line.startswith("# ")
    ]
    if not lines:
        raise UserError(f"{path}: lists no classes; expected lines that begin with an id")
    seen: dict[str, int] = {}
    for number, line in lines:
        if line in seen:
            raise UserError(
                f"{path}:{number}: class {line} is listed more than once, on line {seen[line]} too"
            )
        seen[line] = number
    return ClassList(os.fspath(path), tuple(lines))


def _fitting(text: str, known: Mapping[str, object], longest: int) -> dict[str, str | None]:
    """The ids that a line may mean, each with the name that follows; only itself if it is one."""
    if text in known:
        return {text: None}
    if fields := separated(text):
        rest = " ".join(field for field in fields[1:] if field)
        return {fields[0]: rest or None} if fields[0] in known else {}
    if comma := re.search(r"\s*[,;]\s*", text):
        head = text[: comma.start()]
        if head in known:
            return {head: text[comma.end() :] or None}
    fitting = {}
    for space in re.finditer(r"\s+", text):
        if space.start() > longest:
            break
        if text[: space.start()] in known:
            fitting[text[: space.start()]] = text[space.end() :]
    # Where `black` and `black bear` are classes, `black dog` is more likely a third than `black`.
    for head in list(fitting):
        fitting |= {other: None for other in known if other.startswith(f"{head} ")}
    return fitting
