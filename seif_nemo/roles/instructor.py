"""The Instructor: is shown a seed question and writes constraints for it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from seif_nemo.data.streams import derive_seed
from seif_nemo.protocols.tokenizer import Message
from seif_nemo.roles.json_extract import Malformed, extract_texts
from seif_nemo.roles.prompts import InstructorTemplate, fill
from seif_nemo.types.records import RejectReason


@dataclass(frozen=True, slots=True)
class ParseFailure:
    """`reason` is UNPARSABLE or WRONG_COUNT."""

    reason: RejectReason
    detail: str


def draw_template(templates: Sequence[InstructorTemplate], *, seed: int) -> InstructorTemplate:
    """One of the templates, each equally likely, decided by `seed` alone. Raises ValueError if there is none."""
    if not templates:
        raise ValueError("no Instructor template to draw from")
    return templates[derive_seed(seed, "instructor template") % len(templates)]


def instructor_messages(template: InstructorTemplate, seed_question: str) -> list[Message]:
    """The chat that asks for constraints."""
    slots = {"seed": seed_question}
    if "{count}" in template.user:
        slots["count"] = str(template.num_constraints)
    return [Message("system", template.system), Message("user", fill(template.user, **slots))]


def parse_instruction(text: str, template: InstructorTemplate) -> tuple[str, ...] | ParseFailure:
    """The constraints in an Instructor's output, as many as the template asks for. Never raises."""
    texts = extract_texts(text)
    if isinstance(texts, Malformed):
        return ParseFailure(RejectReason.UNPARSABLE, texts.detail)
    if len(texts) != template.num_constraints:
        return ParseFailure(RejectReason.WRONG_COUNT, f"{len(texts)} constraints, {template.num_constraints} asked for")
    return texts


def instructor_reward(follow_rates: Sequence[float]) -> float:
    """1 − mean of the frozen Follower's follow rates A(x, y) (arXiv 2605.07465), in [0, 1].

    Raises ValueError for no rate or one outside [0, 1]: what is missing is the caller's to tell, never a number.
    """
    if not follow_rates or not all(0.0 <= rate <= 1.0 for rate in follow_rates):
        raise ValueError(f"follow_rates={list(follow_rates)} must be one or more numbers in [0, 1]")
    return 1.0 - math.fsum(follow_rates) / len(follow_rates)
