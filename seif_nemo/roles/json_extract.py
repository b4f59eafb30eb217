"""The list of texts that a model meant to write as JSON, out of whatever it wrote around it.

Tolerated: reasoning in <think> tags, code fences, prose before and after, trailing commas, line breaks within strings.
The last balanced {...} that is JSON counts. After that the schema is strict.
"""

import json
import re
from dataclasses import dataclass
from typing import cast

_THINK_END = "</think>"
_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*+(?:"|\Z))|,(\s*+[}\]])', re.DOTALL)
_MAX_STARTS = 64  # of braces that never close; bounds the work to a multiple of the length


@dataclass(frozen=True, slots=True)
class Malformed:
    """Why a text holds no list of texts."""

    detail: str


class _DuplicateKeyError(ValueError):
    pass


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise _DuplicateKeyError("a key occurs twice")
    return dict(pairs)


def _end_of_object(text: str, start: int) -> int | None:
    """The place after the brace that closes the one at `start`, strings skipped; None if it never closes."""
    depth, in_string, position = 0, False, start
    for match in re.compile(r'\\.|["{}]', re.DOTALL).finditer(text, start):
        mark, position = match.group(), match.end()
        if mark == '"':
            in_string = not in_string
        elif not in_string and mark == "{":
            depth += 1
        elif not in_string and mark == "}":
            depth -= 1
            if depth == 0:
                return position
    return None


def _balanced_objects(text: str) -> list[str]:
    """Outermost {...} stretches, from left to right; none overlap, so all of them are no longer than the text."""
    found: list[str] = []
    start, unclosed = text.find("{"), 0
    while start >= 0 and unclosed < _MAX_STARTS:
        end = _end_of_object(text, start)
        if end is None:
            unclosed += 1
            end = start + 1
        else:
            found.append(text[start:end])
        start = text.find("{", end)
    return found


def _load(candidate: str) -> dict[str, object] | Malformed | None:
    """The object; Malformed if it is JSON that says two things; None if it is not JSON."""
    repaired = _TRAILING_COMMA.sub(lambda m: m.group(1) or m.group(2), candidate)
    for text in (candidate, repaired):
        try:
            value: object = json.loads(text, strict=False, object_pairs_hook=_unique)
        except _DuplicateKeyError as error:
            return Malformed(str(error))
        except (ValueError, RecursionError):
            continue
        assert isinstance(value, dict)
        return cast(dict[str, object], value)
    return None


def _texts(value: object) -> tuple[str, ...] | Malformed:
    if isinstance(value, dict):
        entries = cast(dict[str, object], value)
        inner = entries.get("constraints")
        if len(entries) == 1 and isinstance(inner, list | dict):
            return _texts(cast(object, inner))
        values = list(entries.values())
    else:
        values = cast(list[object], value)
    texts: list[str] = []
    for entry in values:
        if not isinstance(entry, str):
            return Malformed(f"a value is of type {type(entry).__name__}, not a string")
        if not entry.strip():
            return Malformed("a value is empty")
        texts.append(" ".join(entry.split()))
    return tuple(texts) if texts else Malformed("the object is empty")


def extract_texts(text: str) -> tuple[str, ...] | Malformed:
    """The texts of the last JSON object, in order, white space made plain. Never raises; linear in the text.

    The object maps names to non-empty strings, or has the single name "constraints" with a list (or such an object).
    """
    if "<think>" in text or _THINK_END in text:
        _, closed, text = text.rpartition(_THINK_END)
        if not closed or "<think>" in text:
            return Malformed("the reasoning never ends")
    candidates = _balanced_objects(text)
    for candidate in reversed(candidates):
        value = _load(candidate)
        if value is not None:
            return value if isinstance(value, Malformed) else _texts(value)
    return Malformed("no balanced {...} is JSON" if candidates else "no balanced {...}")
