"""Generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438, eq. 16) over the tokens of a response.

The last token of a response ends its episode, also where the response ran into the limit: its reward is that of the
response as it stands, so the limit is a part of the task and nothing is to come after it. A value of what would have
followed would pay for an end that is never written.

Shape suffixes: T tokens of one response.
"""

import numpy as np

from seif_nemo.types.rollouts import LogProbs


def generalised_advantages(
    rewards_T: LogProbs, values_T: LogProbs, *, gamma: float, gae_lambda: float
) -> tuple[LogProbs, LogProbs]:
    """(advantages, returns) per token, fp32.

    `values_T[t]` is the critic's value of the state before token t is written; after the last token it is 0. With
    delta_t = r_t + gamma V_{t+1} - V_t the advantage is the sum of (gamma lambda)^k delta_{t+k}; the return, which the
    critic learns, is the advantage plus the value.
    """
    assert rewards_T.shape == values_T.shape
    next_values_T = np.append(values_T[1:], np.float32(0))[: len(values_T)]
    deltas_T = rewards_T.astype(np.float64) + gamma * next_values_T.astype(np.float64) - values_T
    advantages_T = np.zeros(len(deltas_T), dtype=np.float64)
    to_come = 0.0
    for t in reversed(range(len(deltas_T))):
        to_come = deltas_T[t] + gamma * gae_lambda * to_come
        advantages_T[t] = to_come
    return advantages_T.astype(np.float32), (advantages_T + values_T).astype(np.float32)
