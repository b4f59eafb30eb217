"""Collapse made visible, and its price: how alike the instructions of an Instructor are."""

import re
from collections import Counter
from collections.abc import Sequence

from seif_nemo.constraints.numbers import NUMBER
from seif_nemo.types.constraints import Constraint, Instruction

_NUMBER = re.compile(rf"(?<!\w)(?:{NUMBER})|\d+")
_QUOTED = re.compile(r"[\"“”'‘’「」『』][^\"“”'‘’「」『』]*[\"“”'‘’「」『』]")


_NAME = re.compile(r"(?<![.!?:;] )(?<!^)(?<!\w)[A-Z][a-z]+(?!\w)(?: [A-Z][a-z]+(?!\w))*")
_LOWER_WORD = re.compile(r"(?<!\w)[a-z]+(?!\w)")


def constraint_template(constraint: Constraint) -> str:
    """The constraint's text with its arguments blanked: numbers, quoted text, names, and the keyword its spec names.

    Names are words with a capital first letter that start no sentence. In a text with more of them than words in small
    letters, such as a headline, capitals say nothing and stay.
    """
    text = constraint.text.strip().rstrip(".")
    quoted = [found[1:-1].strip().lower() for found in _QUOTED.findall(text)]
    text = _QUOTED.sub("…", text)
    names = " ".join(_NAME.findall(text)).split()
    if len(names) < len(_LOWER_WORD.findall(text)):
        text = _NAME.sub("…", text)
    text = _NUMBER.sub("#", text.lower())
    argument = (constraint.spec.text or "").lower() if constraint.spec is not None else ""
    if not argument or argument in quoted:
        return text
    # Scripts without case, such as Chinese, mostly do not separate words.
    pattern = rf"(?<!\w){re.escape(argument)}(?!\w)" if argument.islower() else re.escape(argument)
    return re.sub(pattern, "…", text)


def common_shares(instructions: Sequence[Instruction]) -> list[float]:
    """For each instruction, how common what it asks for is in the batch, in [0, 1].

    The mean over its constraints of the share of the *other* instructions that hold a constraint of the same template.
    Constraints and not whole instructions are clustered because collapse is mostly one demand beside changing
    companions ("exactly 2 bullet points" in 39% of the rows): sets of three to five templates are hardly ever equal.
    Without itself, so that what nobody else asks costs nothing, however few are in the batch.
    """
    templates = [[constraint_template(c) for c in instruction.constraints] for instruction in instructions]
    holders = Counter(template for each in templates for template in set(each))
    others = len(instructions) - 1
    if others < 1:
        return [0.0] * len(instructions)
    return [sum(holders[template] - 1 for template in each) / others / max(1, len(each)) for each in templates]


def distinct_template_share(instructions: Sequence[Instruction]) -> float:
    """Different instruction templates / instructions. An instruction's template is the set of its constraints'."""
    templates = {frozenset(constraint_template(c) for c in instruction.constraints) for instruction in instructions}
    return len(templates) / len(instructions) if instructions else 0.0
