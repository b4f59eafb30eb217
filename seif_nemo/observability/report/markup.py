"""Builds HTML and inline SVG. Every plain string is escaped; only what `tag` returns counts as markup.

So model text cannot become markup by being forgotten: there is no other way to put a string on the page.
"""

import html
import re
from collections.abc import Iterable

_VOID = frozenset({"meta", "br"})
# What HTML cannot hold (control characters other than tab and newline, halves of surrogate pairs), and what turns the
# direction of the text around it.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


Child = str | int | None | Iterable["Child"]


def escape(text: str) -> Html:
    """`text` as it should be read, in element content or a double-quoted attribute. Unprintable characters become �."""
    return Html(html.escape(_UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n"))))


def tag(name: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Html:
    """`<name attributes>children</name>`.

    In attribute names a trailing underscore is dropped and others become hyphens (`class_`, `stroke_width`). Attributes
    that are None or False are left out, True ones are bare, floats get at most two decimals. Children that are None are
    left out.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        parts.append(key if value is True else f'{key}="{escape(_attribute(value))}"')
    opening = Html(f"<{' '.join(parts)}>")
    return opening if name in _VOID else Html(f"{opening}{join(children)}</{name}>")


def join(children: Child) -> Html:
    """One piece of markup from nested children."""
    if children is None:
        return Html("")
    if isinstance(children, Html):
        return children
    if isinstance(children, (str, int)):
        return escape(str(children))
    return Html("".join(join(child) for child in children))


def clip(text: str, limit: int) -> str:
    """The first `limit` characters; says how many were left out."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]} … ({len(text) - limit:,} more characters)"


def _attribute(value: str | int | float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
