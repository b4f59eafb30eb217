"""Group-normalised advantages of GRPO (Shao et al. 2024, arXiv 2402.03300, eq. 3)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

EPSILON = 1e-6  # added to the standard deviation; groups with less spread than this carry no signal and are dropped


@dataclass(frozen=True, slots=True)
class GroupAdvantages:
    """Advantages in the order of the rewards, with `None` where a response must not be learned from.

    Every `None` is explained by one count: its reward was missing, its group was too small or had equal rewards.
    """

    advantages: tuple[tuple[float | None, ...], ...]  # per group, per response
    num_missing_rewards: int  # responses
    num_small_groups: int  # groups with exactly one reward that is not missing
    num_zero_variance_groups: int
    num_missing_groups: int  # groups in which every reward is missing

    @property
    def num_kept_groups(self) -> int:
        return sum(any(value is not None for value in group) for group in self.advantages)


def group_advantages(rewards: Sequence[Sequence[float | None]]) -> GroupAdvantages:
    """(reward - mean) / (std + 1e-6) inside each group of responses to one prompt.

    The standard deviation is the unbiased one (n - 1), as in the common GRPO implementations. A missing reward (`None`)
    leaves its group, which is normalised over the rest. Groups may differ in size.

    Raises `ValueError` for a reward that is not finite.
    """
    advantages: list[tuple[float | None, ...]] = []
    missing = small = zero_variance = empty = 0
    for index, group in enumerate(rewards):
        for reward in group:
            if reward is not None and not math.isfinite(reward):
                raise ValueError(f"reward {reward} in group {index} is not finite; a reward that failed must be None")
        known_N = torch.tensor([reward for reward in group if reward is not None], dtype=torch.float64)
        missing += len(group) - len(known_N)
        dropped = (None,) * len(group)
        if len(known_N) < 2:
            small += len(known_N) == 1
            empty += len(known_N) == 0
            advantages.append(dropped)
            continue
        std = known_N.std(correction=1).item()
        if std <= EPSILON:
            zero_variance += 1
            advantages.append(dropped)
            continue
        mean = known_N.mean().item()
        advantages.append(tuple(None if reward is None else (reward - mean) / (std + EPSILON) for reward in group))
    return GroupAdvantages(
        advantages=tuple(advantages),
        num_missing_rewards=missing,
        num_small_groups=small,
        num_zero_variance_groups=zero_variance,
        num_missing_groups=empty,
    )
