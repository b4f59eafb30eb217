"""Collapse made visible: how many different instruction templates an Instructor still writes."""

import re
from collections.abc import Sequence

from seif_nemo.types.constraints import Constraint, Instruction

_NUMBER = re.compile(r"\d+")
_QUOTED = re.compile(r"[\"“”'‘’「」『』][^\"“”'‘’「」『』]*[\"“”'‘’「」『』]")


def constraint_template(constraint: Constraint) -> str:
    """The constraint's text with its arguments blanked: numbers, quoted text, and the keyword its spec names."""
    text = constraint.text.strip().rstrip(".").lower()
    text = _NUMBER.sub("#", _QUOTED.sub("…", text))
    argument = constraint.spec.text if constraint.spec is not None else None
    return text.replace(argument.lower(), "…") if argument else text


def distinct_template_share(instructions: Sequence[Instruction]) -> float:
    """Different instruction templates / instructions. An instruction's template is the set of its constraints'."""
    templates = {frozenset(constraint_template(c) for c in instruction.constraints) for instruction in instructions}
    return len(templates) / len(instructions) if instructions else 0.0
