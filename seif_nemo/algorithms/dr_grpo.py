"""Dr. GRPO (Liu et al. 2025, arXiv 2503.20783, section 3.2): GRPO without its two biases.

Advantages are not divided by the group's standard deviation, so that very easy and very hard prompts weigh no more.
The loss is summed over tokens and divided by a constant, so that long wrong answers are not favoured (means.py).

Shape suffixes: N responses of one group.
"""

from torch import Tensor


def dr_grpo_advantages(rewards_N: Tensor) -> Tensor:
    """reward - mean of its group."""
    return rewards_N - rewards_N.mean()
