"""Files of class taxonomies: pairs of ids, or one node per line indented below its parent."""

import os
import re
from pathlib import Path

from embeddings.hierarchy import ClassId, Hierarchy
from foreign_files import read_text
from foreign_files.lines import quoted, quoted_head, same_name, separated, unquoted
from utils import UserError

# WordNet has 0.1 million nouns. An edge takes a kilobyte of memory.
_MAX_BYTES = 2**26
_MAX_LINES = 500_000


def read_hierarchy(
    path: str | os.PathLike, *, is_a: bool | None = False, str_ids: bool = False
) -> Hierarchy:
    """Reads a taxonomy from a file of pairs, or of one node per line indented below its parent.

    Empty lines and lines that begin with `#` are skipped. A file in which a line is indented more
    than the first one is an indented tree; its lines are `id: name`, or only a name, which then is
    the id too. All other files have two ids per line, separated by white space; if ids hold spaces,
    by a tab, a comma or a semicolon, or with double quotes around each. `"black bear": name` does
    so in a tree, where string ids need no quotes.
    A first line `parent child` or `child parent` names the columns.

    Args:
        path: The file, in UTF-8.
        is_a: Pairs are `child parent` instead of `parent child`. `None` finds out by trying which
            of the two has a single root.
        str_ids: Ids are strings. Otherwise they are integers; names without an id stay strings.

    Raises:
        UserError: The file cannot be read or is no taxonomy; the message has file and line.
    """
    path = Path(path)
    lines = [
        (number, line.rstrip())
        for number, line in enumerate(read_text(path, _MAX_BYTES).splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if len(lines) > _MAX_LINES:
        raise UserError(f"{path}: has {len(lines):,} lines, expected at most {_MAX_LINES:,}")
    try:
        indents = [len(line) - len(line.lstrip()) for _, line in lines]
        if any(indent > indents[0] for indent in indents):
            return Hierarchy(*_parse_tree(lines, str_ids))
        header = _header(lines)
        if header and is_a and header == ["parent", "child"]:
            raise UserError("its first line says `parent child`: leave --is_a out")
        is_a = header == ["child", "parent"] if header else is_a
        pairs = _parse_pairs(lines[1:] if header else lines, str_ids)
        if is_a is None:
            is_a = _looks_like_is_a(pairs)
        return Hierarchy((b, a) for a, b in pairs) if is_a else Hierarchy(pairs)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def format_tree(hierarchy: Hierarchy) -> str:
    """A tree in the indented form that `read_hierarchy` reads, four spaces per level.

    Raises:
        UserError: A node has several parents, which this form cannot express.
    """
    if not hierarchy.is_tree:
        raise UserError("only a tree has an indented form; this hierarchy has shared children")
    lines = []
    stack = [hierarchy.root]
    while stack:
        node = stack.pop()
        text, name = str(node), hierarchy.names[node]
        if name != node:
            head = quoted(text) if re.search(r"\s", text) else text
            label = f"{head}: {name}"
        else:
            label = quoted(text) if ": " in text or text[0] == '"' else text
        lines.append("    " * (hierarchy.depths[node] - 1) + label + "\n")
        stack.extend(reversed(hierarchy.children(node)))
    return "".join(lines)


def _parse_id(text: str, number: int, str_ids: bool) -> ClassId:
    if str_ids:
        return same_name(text)
    try:
        return int(text)
    except ValueError:
        raise UserError(
            f"line {number}: the id {text!r} is not an integer; give --str_ids for string ids"
        ) from None


def _parse_pairs(lines: list[tuple[int, str]], str_ids: bool) -> list[tuple[ClassId, ClassId]]:
    pairs = []
    separator = _separator([line for _, line in lines])
    for number, line in lines:
        fields = line.split(separator) if separator else separated(line) or line.split()
        fields = [unquoted(field) for field in fields]
        if len(fields) != 2 or not all(fields):
            raise UserError(
                f"line {number}: expected two ids separated by a space (by a tab or a comma, or in "
                f"double quotes, if ids hold spaces), found {line.strip()[:60]!r}"
            )
        first, second = (_parse_id(field, number, str_ids) for field in fields)
        pairs.append((first, second))
    return pairs


def _separator(lines: list[str]) -> str | None:
    """The comma or semicolon between the two ids of every line, if it is no part of one."""
    words = [line.split() for line in lines]
    for mark in ",;":
        if all(line.count(mark) == 1 for line in lines) and not all(
            len(pair) == 2 and pair[0][-1] != mark != pair[1][0] for pair in words
        ):
            return mark
    return None


def _header(lines: list[tuple[int, str]]) -> list[str] | None:
    """The columns' names, if that is what the first line has."""
    names = [name for name in re.split(r"[\s,;\"]+", lines[0][1].lower()) if name] if lines else []
    return names if sorted(names) == ["child", "parent"] else None


def _looks_like_is_a(pairs: list[tuple[ClassId, ClassId]]) -> bool:
    firsts, seconds = {first for first, _ in pairs}, {second for _, second in pairs}
    return len(firsts - seconds) != 1 and len(seconds - firsts) == 1


def _parse_tree(
    lines: list[tuple[int, str]], str_ids: bool
) -> tuple[list[tuple[ClassId, ClassId]], dict[ClassId, str]]:
    edges: list[tuple[ClassId, ClassId]] = []
    names: dict[ClassId, str] = {}
    first_line: dict[ClassId, int] = {}
    character = ""  # by which lines are indented
    open_nodes: list[tuple[int, ClassId]] = []  # the way from the root to the last line's node
    for number, line in lines:
        indent = len(line) - len(line.lstrip())
        character = character or line[:indent][:1]
        if line[:indent].strip(character or None):
            raise UserError(f"line {number}: indented by tabs and spaces; use only one of them")
        head, colon, name = line.strip().partition(": ")
        if (in_quotes := quoted_head(line)) and (in_quotes[1] or ": ")[:2] == ": ":
            node = name = same_name(in_quotes[0])
            if in_quotes[1]:
                node, name = _parse_id(node, number, str_ids), in_quotes[1][2:].strip()
        elif colon and (str_ids or not any(c.isspace() for c in head)):
            node = _parse_id(head, number, str_ids)
            name = name.strip()
        else:
            node = name = same_name(line.strip())
        if node in first_line:
            raise UserError(
                f"line {number}: {node} is on line {first_line[node]} already; a node below "
                "several parents needs a file of `parent child` lines"
            )
        first_line[node] = number
        names[node] = name

        last_indent = None
        while open_nodes and open_nodes[-1][0] >= indent:
            last_indent = open_nodes.pop()[0]
        if last_indent not in (None, indent):
            raise UserError(f"line {number}: indented unlike any line above that it could follow")
        if open_nodes:
            edges.append((open_nodes[-1][1], node))
        elif number != lines[0][0]:
            raise UserError(
                f"line {number}: {node} is a second root beside {lines[0][1].strip()!r}; "
                "indent all lines but the first"
            )
        open_nodes.append((indent, node))
    return edges, names
