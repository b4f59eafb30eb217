"""Group-normalised advantages of GRPO (Shao et al. 2024, arXiv 2402.03300, section 4.1.2)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

EPSILON = 1e-6  # added to the standard deviation; groups with less spread than this carry no signal and are dropped


@dataclass(frozen=True, slots=True)
class GroupAdvantages:
    """One advantage per reward, in their order; `None` for a response that must not be learned from."""

    advantages: tuple[float | None, ...]
    num_used: int  # groups
    num_zero_variance: int  # groups dropped because their rewards are equal
    num_missing: int  # groups dropped because fewer than two of their rewards are known
    num_missing_rewards: int  # responses without a reward, in any group


def group_advantages(rewards: Sequence[float | None], groups: Sequence[int]) -> GroupAdvantages:
    """(reward - mean) / (std + 1e-6) inside each group of responses to one prompt.

    `groups` names the group of each reward; sizes and order are free. The standard deviation is the unbiased one
    (n - 1), as in the common GRPO implementations. A missing reward (`None`) leaves its group, which is normalised over
    the rest.

    Raises `ValueError` for a reward that is not finite.
    """
    assert len(rewards) == len(groups)
    members: dict[int, list[int]] = {}
    for index, (reward, group) in enumerate(zip(rewards, groups, strict=True)):
        if reward is not None and not math.isfinite(reward):
            raise ValueError(f"reward {reward} in group {group} is not finite; a reward that failed must be None")
        members.setdefault(group, []).append(index)

    advantages: list[float | None] = [None] * len(rewards)
    used = zero_variance = missing = 0
    for indices in members.values():
        known = [(index, reward) for index in indices if (reward := rewards[index]) is not None]
        if len(known) < 2:
            missing += 1
            continue
        known_N = torch.tensor([reward for _, reward in known], dtype=torch.float64)
        mean, std = known_N.mean().item(), known_N.std(correction=1).item()
        if std <= EPSILON:
            zero_variance += 1
            continue
        used += 1
        for index, reward in known:
            advantages[index] = (reward - mean) / (std + EPSILON)
    return GroupAdvantages(
        advantages=tuple(advantages),
        num_used=used,
        num_zero_variance=zero_variance,
        num_missing=missing,
        num_missing_rewards=sum(reward is None for reward in rewards),
    )
