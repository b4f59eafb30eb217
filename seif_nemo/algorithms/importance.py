"""Correction of the difference between the engine that generates and the model that trains.

Both compute the same policy in different kernels, precisions or layouts, so a token's log-prob differs a little and the
rollouts are slightly off policy. Truncated importance sampling (Yao et al. 2025, "Your efficient RL framework secretly
brings you off-policy RL training"; Liu et al. 2025, "When speed kills stability") weighs each token with
exp(log trained - log generated), cut at a bound or set to 0 beyond it.

Shape suffixes: T tokens of one response.
"""

import numpy as np

from seif_nemo.algorithms.kl import MAX_LOG_RATIO
from seif_nemo.types.rollouts import LogProbs


def importance_weights(
    old_logprobs_T: LogProbs, rollout_logprobs_T: LogProbs, *, bound: float, per_sequence: bool, mask: bool
) -> LogProbs:
    """Weights of the tokens of one response, fp32, without gradient.

    `old` are the log-probs of the training forward pass, `rollout` those of the engine. `per_sequence`: one weight for
    all tokens, of the whole response's probability. `mask`: a weight above `bound` or below 1 / `bound` becomes 0, so
    that the token (or response) is not learned from; else it is cut at `bound`.
    """
    assert bound >= 1
    log_ratio_T = old_logprobs_T.astype(np.float64) - rollout_logprobs_T
    if per_sequence:
        log_ratio_T = np.full_like(log_ratio_T, log_ratio_T.sum())
    weights_T = np.exp(np.clip(log_ratio_T, -MAX_LOG_RATIO, MAX_LOG_RATIO))
    if mask:
        weights_T = np.where((weights_T > bound) | (weights_T < 1 / bound), 0.0, weights_T)
    else:
        weights_T = np.minimum(weights_T, bound)
    return weights_T.astype(np.float32)
