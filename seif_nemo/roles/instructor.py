"""The Instructor: is shown a seed question and writes constraints for it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from seif_nemo.config.algorithm import InstructorRewardKind
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


def instructor_reward(kind: InstructorRewardKind, follow_rates: Sequence[float]) -> float:
    """What a kept instruction pays, in [0, 1], from the follow rates A(x, y) of k answers of the frozen Follower.

    Raises ValueError for too few rates or one outside [0, 1]: what is missing is the caller's to tell, never a number.
    """
    if len(follow_rates) < kind.min_answers or not all(0.0 <= rate <= 1.0 for rate in follow_rates):
        raise ValueError(
            f"follow_rates={list(follow_rates)} must be {kind.min_answers} or more numbers in [0, 1] for {kind.name}"
        )
    match kind:
        case InstructorRewardKind.one_minus_rate:
            return one_minus_rate(follow_rates)
        case InstructorRewardKind.band:
            return band(follow_rates)
        case InstructorRewardKind.variance:
            return variance(follow_rates)


def one_minus_rate(follow_rates: Sequence[float]) -> float:
    """1 − mean A(x, y): SEIF's own (arXiv 2605.07465). Pays most for what nobody can do."""
    return 1.0 - _mean(follow_rates)


def band(follow_rates: Sequence[float]) -> float:
    """2 · min(p, 1 − p) with p = mean A(x, y): 1 where half of what is asked is satisfied, 0 where all or nothing is.

    R-Zero's 1 − 2 |p − ½| (arXiv 2508.05004, the Challenger's reward), with p the mean share of satisfied constraints
    and not the share of answers that satisfy all of them: with five constraints hardly an answer does, and p would be 0
    almost everywhere. "0 where no answer satisfies anything" then needs no rule of its own, since p = 0 there. What p
    cannot see, one constraint of three that never succeeds, is for the gate (evolution.solvability_samples).
    """
    p = _mean(follow_rates)
    return 2.0 * min(p, 1.0 - p)


def variance(follow_rates: Sequence[float]) -> float:
    """4 · the variance (over k, not k − 1) of A(x, y): 1 where half of the answers satisfy all and half nothing.

    After SPICE (arXiv 2510.24684), which pays a Gaussian of the variance around its largest value ¼; the straight line
    has the same order and the same best place, and no width to choose. 0 wherever all answers do equally well, so also
    for an instruction of which each answer satisfies half: there a group of the Follower has nothing to learn from.
    """
    mean = _mean(follow_rates)
    return 4.0 * _mean([(rate - mean) ** 2 for rate in follow_rates])


def with_diversity(reward: float, *, common_share: float, coefficient: float) -> float:
    """reward · (1 − coefficient · common_share), both in [0, 1]: the more common a kept instruction, the less it pays.

    `common_share` is what `evolution.diversity.common_shares` says of it. R-Zero (arXiv 2508.05004) subtracts the share
    of the batch in the same cluster and cuts off at 0. There whole questions are clustered and shares are small; here
    they are shares of single demands, in a batch without collapse 0.2 to 0.4 already, and subtracting them made many
    instructions worth 0, which is what a refused output gets. As a factor it keeps the order: whatever is kept and pays
    anything stays above what is refused, and groups keep their spread.
    """
    assert 0.0 <= common_share <= 1.0, common_share
    return reward * (1.0 - coefficient * common_share)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
