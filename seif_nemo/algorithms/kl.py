"""Estimator of KL(policy || reference) from the log-probs of tokens that the policy sampled.

Source: J. Schulman, "Approximating KL Divergence" (2020). With r = reference / policy of one token:
k3 = r - 1 - log r. It is unbiased and never negative.

Shape suffixes: T tokens.
"""

from torch import Tensor

MAX_LOG_RATIO = 20.0  # keeps exp() finite in fp32; beyond it k3 has no gradient


def k3(logprobs_T: Tensor, reference_T: Tensor) -> Tensor:
    """exp(d) - 1 - d per token with d = log reference - log policy, clamped to [-20, 20]."""
    log_ratio_T = (reference_T - logprobs_T).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return log_ratio_T.expm1() - log_ratio_T
