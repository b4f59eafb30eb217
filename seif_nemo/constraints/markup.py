"""Markdown in a response: emphasised phrases, and whether there is any markup at all. Text has been through `clean`.

Patterns are linear: each run is possessive and ends where the next opening mark could stand.
"""

import re
import unicodedata

from seif_nemo.constraints.remembering import remember
from seif_nemo.constraints.text import (
    COMMAS,
    bullets,
    count_phrase,
    count_tables,
    fold,
    headings,
    lines_without_code,
    words,
)

_HTML = r"<(?P<{0}>{1})>([^<\n]++)</(?P={0})>"
_STARS_BOLD = re.compile(r"\*\*(?=\S)((?:[^*\n]|\*(?!\*))++)\*\*")
_LINES_BOLD = re.compile(r"(?<!\w)__(?=\S)((?:[^_\n]|_(?!_))++)__(?!\w)")
_HTML_BOLD = re.compile(_HTML.format("bold", "b|strong"), re.IGNORECASE)
_STARS = re.compile(r"(?<![*a-zA-Z0-9])\*(?=[^\s*])([^*\n]++)\*(?![*a-zA-Z0-9])")  # not in 2*x*y
_LINES = re.compile(r"(?<![\w])_(?=[^\s_])([^_\n]++)_(?!\w)")
_MARKED = re.compile(r"==(?=[^\s=])([^=\n]++)==")
_HTML_EMPHASIS = re.compile(_HTML.format("other", "em|i|mark|u"), re.IGNORECASE)
_BOLD = (_STARS_BOLD, _LINES_BOLD, _HTML_BOLD)
_ANY_BOLD = re.compile("|".join(pattern.pattern for pattern in _BOLD), re.IGNORECASE)
_ANY = re.compile(
    "|".join(pattern.pattern for pattern in (*_BOLD, _STARS, _LINES, _MARKED, _HTML_EMPHASIS)), re.IGNORECASE
)
_TAG = re.compile(r"</?[a-z]++>", re.IGNORECASE)
_LIST_MARK = re.compile(r"^[ \t]*+[*+\-][ \t]++", re.MULTILINE)
_OTHER = re.compile(
    r"^[ \t]*+(?:```|~~~|> ?\S|\d{1,3}[.)][ \t]++\S"  # code, quotation, number
    r"|(?:-[ \t]*+){3,}+$|(?:\*[ \t]*+){3,}+$|(?:_[ \t]*+){3,}+$)"  # rule
    r"|`[^`\n]++`|~~[^~\n]++~~|\[[^\[\]\n]++\]\([^()\s]++\)",  # code within a line, link
    re.MULTILINE,
)
_ENDS = "\ue000"  # stands between two spans, so that no phrase is found across them
# Marks that NFKC does not make one of ASCII.
_ASCII_MARK = {"。": ".", "―": "—"}
_IN_WORDS = frozenset("'-")


def _prose(text: str) -> str:
    """The text without its blocks of code and list marks, neither of which emphasise anything."""
    return _LIST_MARK.sub("", "\n".join(lines_without_code(text)))


@remember(maxsize=64)
def _spans(text: str, bold: bool) -> str:
    """Folded texts in bold (or in any emphasis), side by side."""
    body = _prose(text)
    found = [m[1] for pattern in (_STARS_BOLD, _LINES_BOLD) for m in pattern.finditer(body)]
    found += [m[2] for m in _HTML_BOLD.finditer(body)]
    if not bold:
        found += [m[1] for pattern in (_STARS, _LINES, _MARKED) for m in pattern.finditer(body)]
        found += [m[2] for m in _HTML_EMPHASIS.finditer(body)]
    return fold(f" {_ENDS} ".join(span.strip("*_=") for span in found))


def missing_emphasis(text: str, phrases: str, *, bold: bool) -> str | None:
    """The first of the phrases, one per line, that stands nowhere in bold (or, unless `bold`, in any emphasis)."""
    spans = _spans(text, bold)
    return next((p for p in phrases.split("\n") if not count_phrase(spans, p, whole_words=True)), None)


def count_emphasis(text: str, *, bold: bool) -> int:
    """Emphasised sections (or only those in bold) that hold a word. One within another is not counted."""
    pattern = _ANY_BOLD if bold else _ANY
    return sum(bool(words(_TAG.sub("", m.group()))) for m in pattern.finditer(_prose(text)))


def has_markup(text: str) -> bool:
    """Some heading, list, emphasis, code, quotation, link, table or rule that markdown renders."""
    is_listed = any(line.lstrip()[:1] in ("*", "-", "+") for line in text.split("\n")) and bool(bullets(text))
    return bool(is_listed or headings(text) or count_tables(text) or _spans(text, False) or _OTHER.search(text))


def _ascii_mark(char: str) -> str:
    narrow = unicodedata.normalize("NFKC", char)
    return _ASCII_MARK.get(char, narrow if len(narrow) == 1 else char)


def count_marks(text: str, marks: str) -> tuple[int, int]:
    """Punctuation marks that certainly and possibly count; of the characters in `marks`, or all where it is empty.

    Full-width marks count as the ASCII ones. An apostrophe or hyphen may belong to a word, so it counts for certain
    only where it is named.
    """
    folded = [_ascii_mark(char) for char in text]
    if marks:
        wanted = {_ascii_mark(mark) for mark in marks}
        if "," in wanted:
            wanted.update(COMMAS)
        count = sum(char in wanted for char in folded)
        return count, count
    found = [char for char in folded if unicodedata.category(char).startswith("P")]
    return sum(char not in _IN_WORDS for char in found), len(found)
