"""What a step learns from: rollouts with their rewards."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seif_nemo.types.rollouts import Rollout


@dataclass(frozen=True, slots=True, eq=False)
class RewardedRollout:
    """A rollout with its reward (None = missing) and the group whose mean it is compared with."""

    rollout: Rollout
    group: int
    reward: float | None
    note: dict[str, str | None]  # for samples.jsonl


class BadRewardError(ValueError):
    """A reward is no finite number."""


def check_rewards(rewarded: Sequence[RewardedRollout]) -> None:
    """Raises BadRewardError, one line with the row, for a reward that is neither finite nor missing."""
    for row, item in enumerate(rewarded):
        if item.reward is not None and not math.isfinite(item.reward):
            raise BadRewardError(
                f"row {row} (group {item.group}): a reward of {item.reward} is neither finite nor missing, and nothing "
                f"is learned from the step. The response begins {item.rollout.text[:80]!r}"
            )


Sampled = tuple[list[RewardedRollout], dict[str, float]]  # with metrics
# (step, draw) -> what gives the rollouts, once they are rewarded. Generation is over before it returns. Draws after the
# first are of other prompts, with groups numbered from 0 again.
StepSampler = Callable[[int, int], Callable[[], Sampled]]
