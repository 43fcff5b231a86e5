"""Tables of results as aligned text, CSV and LaTeX, and files of JSON."""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from utils import atomic_path

Rows = Sequence[Mapping[str, Any]]


def columns_of(rows: Rows) -> list[str]:
    """The columns of rows that may have different ones, in the order of their appearance."""
    return list(dict.fromkeys(column for row in rows for column in row))


def cell(value: Any) -> str:
    """A value as it stands in a table: nothing for `None`, four digits of other numbers."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def text(rows: Rows) -> str:
    """Rows as an aligned table; columns of numbers are aligned to the right."""
    columns = columns_of(rows)
    cells = [[cell(row.get(column)) for column in columns] for row in rows]
    numeric = [
        all(isinstance(row.get(column), int | float | None) for row in rows) for column in columns
    ]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]

    def line(values):
        parts = zip(values, widths, numeric, strict=True)
        return "  ".join(v.rjust(w) if right else v.ljust(w) for v, w, right in parts).rstrip()

    return "\n".join(map(line, [columns, *cells]))


def write_csv(path: str | os.PathLike, rows: Rows) -> None:
    """Writes rows as CSV, numbers with all their digits."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, columns_of(rows), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def latex(rows: Rows) -> str:
    """Rows as a `tabular` with the rules of the package booktabs."""
    columns = columns_of(rows)

    def line(values):
        escaped = ("".join(_LATEX.get(c, c) for c in cell(value)) for value in values)
        return " & ".join(escaped) + r" \\"

    return "\n".join(
        [
            rf"\begin{{tabular}}{{{'l' * len(columns)}}}",
            r"\toprule",
            line(columns),
            r"\midrule",
            *(line([row.get(column) for column in columns]) for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def write_text(path: str | os.PathLike, content: str) -> None:
    """Writes a text whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(content)


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Writes JSON whole or not at all; numbers that JSON lacks (NaN, infinity) raise."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
