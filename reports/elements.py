"""Parts of an HTML page. What comes from outside, such as a class's name, is escaped here."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

# A class or a file may have any name.
_NAME_LENGTH = 80


def name(text: str) -> str:
    """A name from outside, shortened and escaped."""
    return attribute(text if len(text) <= _NAME_LENGTH else f"{text[: _NAME_LENGTH - 1]}…")


def file_name(text: str) -> str:
    """As `name`, of a path, whose end says most."""
    return attribute(text if len(text) <= _NAME_LENGTH else f"…{text[1 - _NAME_LENGTH :]}")


def attribute(text: str) -> str:
    """A text from outside, escaped, whose characters are all visible."""
    return escape("".join(c if c.isprintable() else "\ufffd" for c in text))


def paragraph(text: str, style: str = "") -> str:
    """A paragraph of plain text."""
    return f"<p{_style(style)}>{escape(text)}</p>"


def note(text: str) -> str:
    """A paragraph that explains."""
    return paragraph(text, "note")


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Terms and what they are, in plain text."""
    rows = "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in pairs)
    return f'<dl class="facts">{rows}</dl>'


def section(key: str, title: str, *parts: str) -> str:
    """A part of the page with a title; an empty text if there is nothing in it."""
    if not any(parts):
        return ""
    return f'<section id="{key}"><h2>{escape(title)}</h2>{"".join(parts)}</section>'


def table(titles: Sequence[str], rows: Iterable[Sequence[tuple[str, Any]]], style: str = "") -> str:
    """A table that scrolls.

    Args:
        titles: Of the columns, in plain text.
        rows: Their cells: HTML, and what they are sorted by.
        style: A class.
    """
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join(
        "<tr>" + "".join(f'<td data-value="{attribute(str(v))}">{c}</td>' for c, v in row) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table{_style(style)}><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def details(title: str, content: str, style: str = "") -> str:
    """What is folded away below its title."""
    return f"<details{_style(style)}><summary>{escape(title)}</summary>{content}</details>"


def _style(name: str) -> str:
    return f' class="{name}"' if name else ""


def percent(share: float | None) -> str:
    """A share as a percentage with one decimal, or a dash."""
    return "–" if share is None else f"{100 * share:.1f} %"
