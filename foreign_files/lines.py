"""Lines of text files from anyone: where their fields end, and names that look alike."""

import re
import unicodedata

_QUOTED = r'"(?:[^"]|"")*"'
_FIELDS_WITH_QUOTES = re.compile(rf"(?:{_QUOTED}|[^\s,;\"]+)(?:[\s,;]+(?:{_QUOTED}|[^\s,;\"]+))*")
_FIELD = re.compile(rf"{_QUOTED}|[^\s,;\"]+")
_QUOTED_HEAD = re.compile(rf"({_QUOTED})\s*(.*)")
_HEADER_WORDS = frozenset(
    "id ids class classes class_id classid class_ids label labels label_id name names class_name "
    "classname category categories species parent parents child children path paths file files "
    "filename file_name image images image_path image_id target".split()
)


def same_name(text: str) -> str:
    """A name in the one form that all names that look alike have (Unicode's NFC).

    macOS takes `é` apart into a letter and an accent, other systems do not.
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def unquoted(text: str) -> str:
    """A field without double quotes around it, of which two stand for one within them."""
    text = text.strip()
    if len(text) > 1 and re.fullmatch(_QUOTED, text):
        return text[1:-1].replace('""', '"')
    return text


def quoted(text: str) -> str:
    """The opposite of `unquoted`."""
    return '"' + text.replace('"', '""') + '"'


def quoted_head(line: str) -> tuple[str, str] | None:
    """The quoted field that a line begins with, and what follows it; `None` without one."""
    match = _QUOTED_HEAD.fullmatch(line.strip())
    return match and (unquoted(match[1]), match[2])


def separated(line: str) -> list[str] | None:
    """The fields of a line that says where they end, by tabs or by double quotes.

    Returns:
        The fields, which may hold spaces, or `None` if nothing but white space is between them.
    """
    line = line.strip()
    if "\t" in line:
        return [unquoted(field) for field in re.split(r"\s*\t\s*", line)]
    if '"' in line and _FIELDS_WITH_QUOTES.fullmatch(line):
        return [unquoted(field) for field in _FIELD.findall(line)]
    return None


def is_header(line: str) -> bool:
    """Whether a line names columns, as the first one of a table does."""
    words = [word for word in re.split(r"[\s,;\"]+", line.lower()) if word]
    return bool(words) and all(word in _HEADER_WORDS for word in words)
