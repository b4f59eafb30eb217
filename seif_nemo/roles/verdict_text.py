"""Verdicts in a model's text: "[[<code> <word>]]"."""

import re

from seif_nemo.roles.reasoning import after_reasoning


def last_verdict(text: str, *, code: str, words: tuple[str, ...]) -> str | None:
    """The word of the last verdict that carries the code, in lower case; None if there is none.

    Analysis comes before the verdict, so earlier ones may be drafts. Reasoning in <think> tags does not count; if it
    never ends, no verdict was given.
    """
    answer = after_reasoning(text)
    if answer is None:
        return None
    pattern = rf"\[\[\s*+{re.escape(code)}[\s:,\-]*+({'|'.join(map(re.escape, words))})\s*+\.?\]\]"
    found = re.findall(pattern, answer, re.IGNORECASE)
    return str(found[-1]).lower() if found else None
