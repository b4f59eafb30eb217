"""Generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438, eq. 16) over the tokens of a response.

Shape suffixes: T tokens of one response.
"""

import numpy as np

from seif_nemo.types.rollouts import LogProbs


def generalised_advantages(
    rewards_T: LogProbs, values_T: LogProbs, *, discount: float, trace: float
) -> tuple[LogProbs, LogProbs]:
    """(advantages, returns) per token, fp32.

    `values_T[t]` is the critic's value before token t is written; after the last token the episode has ended and its
    value is 0. With delta_t = r_t + discount * V_{t+1} - V_t the advantage is the sum of (discount * trace)^k
    delta_{t+k}; the return, which the critic learns, is the advantage plus the value.
    """
    assert rewards_T.shape == values_T.shape
    advantages_T = np.zeros(len(rewards_T), dtype=np.float64)
    following, next_value = 0.0, 0.0
    for t in range(len(rewards_T) - 1, -1, -1):
        value = float(values_T[t])
        delta = float(rewards_T[t]) + discount * next_value - value
        following = delta + discount * trace * following
        advantages_T[t], next_value = following, value
    returns_T = advantages_T + values_T
    return advantages_T.astype(np.float32), returns_T.astype(np.float32)
