"""RLOO (Ahmadian et al. 2024, arXiv 2402.14740, eq. 8): REINFORCE with the mean of the others as baseline.

Shape suffixes: N responses of one group.
"""

from torch import Tensor


def rloo_advantages(rewards_N: Tensor) -> Tensor:
    """reward - mean of the other rewards of its group."""
    number = len(rewards_N)
    assert number >= 2
    return (rewards_N - rewards_N.mean()) * (number / (number - 1))
