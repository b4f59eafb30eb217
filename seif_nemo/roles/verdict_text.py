"""Verdicts in a model's text: "[[<code> <word>]]"."""

import re
from dataclasses import dataclass

from seif_nemo.roles.reasoning import after_reasoning


@dataclass(frozen=True, slots=True)
class FoundVerdict:
    """The word in lower case, and where it starts in the text (characters)."""

    word: str
    start: int


def verdict_opening(code: str) -> str:
    """A verdict up to its word."""
    return f"[[{code} "


def find_last_verdict(text: str, *, code: str, words: tuple[str, ...]) -> FoundVerdict | None:
    """The last verdict that carries the code; None if there is none.

    Analysis comes before the verdict, so earlier ones may be drafts. Reasoning in <think> tags does not count; if it
    never ends, no verdict was given.
    """
    answer = after_reasoning(text)
    if answer is None:
        return None
    pattern = rf"\[\[\s*+{re.escape(code)}[\s:,\-]*+({'|'.join(map(re.escape, words))})\s*+\.?\]\]"
    found = list(re.finditer(pattern, answer, re.IGNORECASE))
    if not found:
        return None
    return FoundVerdict(found[-1].group(1).lower(), len(text) - len(answer) + found[-1].start(1))


def last_verdict(text: str, *, code: str, words: tuple[str, ...]) -> str | None:
    """The word of the last verdict that carries the code (see `find_last_verdict`)."""
    found = find_last_verdict(text, code=code, words=words)
    return None if found is None else found.word
