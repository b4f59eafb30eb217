"""The list of texts that a model meant to write as JSON, out of whatever it wrote around it.

Tolerated: reasoning in <think> tags, code fences, prose before and after, trailing commas, line breaks within strings.
The last balanced {...} that is JSON counts. After that the schema is strict.
"""

import json
import re
from dataclasses import dataclass
from typing import cast

from seif_nemo.roles.reasoning import after_reasoning

_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*+(?:"|\Z))|,(\s*+[}\]])', re.DOTALL)
_MARK = re.compile(r'\\.|["{}]', re.DOTALL)
_MAX_SCANS = 8  # bounds the work to a multiple of the length


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


@dataclass(frozen=True, slots=True)
class _Scan:
    """`objects` are outermost balanced stretches; `open_at` is the first brace that never closes, None if all do."""

    objects: list[tuple[int, int]]
    open_at: int | None
    in_string: bool  # at the end of the text


def _scan(text: str, start: int) -> _Scan:
    """One pass from a brace on. Quotation marks count within braces only, so that prose before them does not matter."""
    opened: list[int] = []
    closed: list[tuple[int, int]] = []
    in_string = False
    for match in _MARK.finditer(text, start):
        mark = match.group()
        if mark == "{" and not in_string:
            opened.append(match.start())
        elif mark == '"' and opened:
            in_string = not in_string
        elif mark == "}" and opened and not in_string:
            begin = opened.pop()
            while closed and closed[-1][0] > begin:
                closed.pop()
            closed.append((begin, match.end()))
    return _Scan(closed, opened[0] if opened else None, in_string)


def _balanced_objects(text: str) -> list[str]:
    """Outermost {...} stretches, from left to right; none overlap, so all of them are no longer than the text."""
    found: list[tuple[int, int]] = []
    start = text.find("{")
    for _ in range(_MAX_SCANS):
        if start < 0:
            break
        scan = _scan(text, start)
        found += scan.objects
        if scan.open_at is None or not scan.in_string:
            break
        # A lone quotation mark after a lone brace hides what follows: read on behind that brace.
        start = text.find("{", max([scan.open_at + 1, *(end for _, end in scan.objects)]))
    return [text[begin:end] for begin, end in found]


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
        if any("\ud800" <= ch <= "\udfff" for ch in entry):  # the tokenizer refuses it
            return Malformed("half of a surrogate pair")
        texts.append(" ".join(entry.split()))
    return tuple(texts) if texts else Malformed("the object is empty")


def extract_texts(text: str) -> tuple[str, ...] | Malformed:
    """The texts of the last JSON object, in order, white space made plain. Never raises; linear in the text.

    The object maps names to non-empty strings, or has the single name "constraints" with a list (or such an object).
    """
    answer = after_reasoning(text)
    if answer is None:
        return Malformed("the reasoning never ends")
    candidates = _balanced_objects(answer)
    for candidate in reversed(candidates):
        value = _load(candidate)
        if value is not None:
            return value if isinstance(value, Malformed) else _texts(value)
    return Malformed("no balanced {...} is JSON" if candidates else "no balanced {...}")
