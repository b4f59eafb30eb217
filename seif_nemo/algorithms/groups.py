"""Advantages relative to the other responses to the same prompt: what GRPO, Dr. GRPO and RLOO share."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-6  # groups with less spread than this carry no signal and are dropped


@dataclass(frozen=True, slots=True)
class GroupAdvantages:
    """One advantage per reward, in their order; `None` for a response that must not be learned from."""

    advantages: tuple[float | None, ...]
    num_used: int  # groups
    num_zero_variance: int  # groups dropped because their rewards are equal
    num_missing: int  # groups dropped because fewer than two of their rewards are known
    num_missing_rewards: int  # responses without a reward, in any group


Formula = Callable[[Tensor], Tensor]  # rewards of one group, float64 [N ≥ 2], not all equal -> advantages [N]


def group_advantages(rewards: Sequence[float | None], groups: Sequence[int], formula: Formula) -> GroupAdvantages:
    """`formula` inside each group of responses to one prompt.

    `groups` names the group of each reward; sizes and order are free. A missing reward (`None`) leaves its group.
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
        if known_N.std(correction=1).item() <= EPSILON:
            zero_variance += 1
            continue
        used += 1
        found_N = [float(value) for value in formula(known_N)]
        for (index, _), advantage in zip(known, found_N, strict=True):
            advantages[index] = advantage
    return GroupAdvantages(
        advantages=tuple(advantages),
        num_used=used,
        num_zero_variance=zero_variance,
        num_missing=missing,
        num_missing_rewards=sum(reward is None for reward in rewards),
    )
