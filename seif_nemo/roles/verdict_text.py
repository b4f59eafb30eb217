"""Verdicts in a model's text: "[[<code> <word>]]"."""

import re

_THINK_END = "</think>"


def last_verdict(text: str, *, code: str, words: tuple[str, ...]) -> str | None:
    """The word of the last verdict that carries the code, in lower case; None if there is none.

    Analysis comes before the verdict, so earlier ones may be drafts. Reasoning in <think> tags does not count; if it
    never ends, no verdict was given.
    """
    if "<think>" in text or _THINK_END in text:
        _, closed, text = text.rpartition(_THINK_END)
        if not closed or "<think>" in text:
            return None
    pattern = rf"\[\[\s*+{re.escape(code)}[\s:,\-]*+({'|'.join(map(re.escape, words))})\s*+\.?\]\]"
    found = re.findall(pattern, text, re.IGNORECASE)
    return str(found[-1]).lower() if found else None
