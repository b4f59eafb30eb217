"""GRPO (Shao et al. 2024, arXiv 2402.03300, section 4.1.2). Its loss is PPO's clipped one, in ppo.py.

Shape suffixes: N responses of one group.
"""

from torch import Tensor

from seif_nemo.algorithms.groups import EPSILON


def grpo_advantages(rewards_N: Tensor) -> Tensor:
    """(reward - mean) / (std + 1e-6), with the unbiased (n - 1) standard deviation of the common implementations."""
    return (rewards_N - rewards_N.mean()) / (rewards_N.std(correction=1) + EPSILON)
