"""Collapse made visible: how many different instruction templates an Instructor still writes."""

import re
from collections.abc import Sequence

from seif_nemo.types.constraints import Constraint, Instruction

_NUMBER = re.compile(r"\d+")
_QUOTED = re.compile(r"[\"“”'‘’「」『』][^\"“”'‘’「」『』]*[\"“”'‘’「」『』]")


def constraint_template(constraint: Constraint) -> str:
    """The constraint's text with its arguments blanked: numbers, quoted text, and the keyword its spec names."""
    text = constraint.text.strip().rstrip(".").lower()
    argument = (constraint.spec.text or "").lower() if constraint.spec is not None else ""
    is_quoted = argument in [quoted[1:-1].strip() for quoted in _QUOTED.findall(text)]
    text = _NUMBER.sub("#", _QUOTED.sub("…", text))
    if not argument or is_quoted:
        return text
    # Scripts without case, such as Chinese, mostly do not separate words.
    pattern = rf"(?<!\w){re.escape(argument)}(?!\w)" if argument.islower() else re.escape(argument)
    return re.sub(pattern, "…", text)


def distinct_template_share(instructions: Sequence[Instruction]) -> float:
    """Different instruction templates / instructions. An instruction's template is the set of its constraints'."""
    templates = {frozenset(constraint_template(c) for c in instruction.constraints) for instruction in instructions}
    return len(templates) / len(instructions) if instructions else 0.0
