"""Estimators of KL(policy || reference) from the log-probs of tokens that the policy sampled.

Source: J. Schulman, "Approximating KL Divergence" (2020). With d = log reference - log policy of one token:
k1 = -d (unbiased, of high variance), k2 = d² / 2 (biased, low variance; as a loss it has the gradient of the true KL
on policy), k3 = exp(d) - 1 - d (unbiased, never negative). As a loss, k1 has a gradient that is zero in expectation:
use it in the reward.

Shape suffixes: T tokens.
"""

from collections.abc import Callable

from torch import Tensor

from seif_nemo.config.algorithm import KlEstimator

MAX_LOG_RATIO = 20.0  # keeps exp() finite in fp32; beyond it k3 has no gradient

Estimator = Callable[[Tensor, Tensor], Tensor]  # (log policy [T], log reference [T]) -> estimate [T]


def k1(logprobs_T: Tensor, reference_T: Tensor) -> Tensor:
    """log policy - log reference per token."""
    return logprobs_T - reference_T


def k2(logprobs_T: Tensor, reference_T: Tensor) -> Tensor:
    """(log policy - log reference)² / 2 per token."""
    return (logprobs_T - reference_T).square() / 2


def k3(logprobs_T: Tensor, reference_T: Tensor) -> Tensor:
    """exp(d) - 1 - d per token with d = log reference - log policy, clamped to [-20, 20]."""
    log_ratio_T = (reference_T - logprobs_T).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return log_ratio_T.expm1() - log_ratio_T


KL_ESTIMATORS: dict[KlEstimator, Estimator] = {KlEstimator.k1: k1, KlEstimator.k2: k2, KlEstimator.k3: k3}
