"""REINFORCE++ (Hu 2025, arXiv 2501.03262): returns normalised over the whole batch instead of inside a group.

With `centre` the mean of each group is taken off first, which is the paper's REINFORCE++-baseline.

Shape suffixes: N responses of one group, T tokens of one response.
"""

import numpy as np
from torch import Tensor

from seif_nemo.algorithms.groups import EPSILON
from seif_nemo.types.rollouts import LogProbs


def centre(rewards_N: Tensor) -> Tensor:
    """reward - mean of its group."""
    return rewards_N - rewards_N.mean()


def returns_to_go(score: float, penalties_T: LogProbs) -> LogProbs:
    """score - sum of the penalties from each token on (undiscounted): the return of every token of one response."""
    return (score - np.cumsum(penalties_T[::-1], dtype=np.float64)[::-1]).astype(np.float32)


def normalise_over_batch(returns: list[LogProbs]) -> list[LogProbs]:
    """(return - mean) / (std + 1e-6) over all tokens of all responses, n - 1 in the standard deviation."""
    joined = np.concatenate(returns).astype(np.float64) if returns else np.zeros(0)
    if len(joined) < 2:
        return [np.zeros_like(values) for values in returns]
    mean, std = joined.mean(), joined.std(ddof=1)
    return [((values - mean) / (std + EPSILON)).astype(np.float32) for values in returns]
