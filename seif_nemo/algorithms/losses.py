"""Token-level policy losses. Everything is a sum over tokens divided by a denominator that the caller gives.

With the number of response tokens of the whole mini-batch as denominator, the parts of micro-batches and data-parallel
ranks simply add up to the token mean: micro-batching, packing and parallelism change nothing.

Shape suffixes: T tokens (one entry per response token; padding has mask 0).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from seif_nemo.algorithms.kl import MAX_LOG_RATIO


@dataclass(frozen=True, slots=True, eq=False)
class PolicyLoss:
    """One micro-batch's part. `loss` and `clip_fraction` add up over micro-batches, `ratio_max` is a maximum."""

    loss: Tensor  # scalar, differentiable
    clip_fraction: Tensor  # scalar: tokens whose gradient a clip removed, divided by the denominator
    ratio_max: Tensor  # scalar: largest policy / old policy; 0 where every token is masked


def masked_sum(values_T: Tensor, mask_T: Tensor, *, denominator: float) -> Tensor:
    """Sum of the values where mask is 1, divided by the denominator (scalar)."""
    return (values_T * mask_T).sum() / denominator


def clipped_policy_loss(
    logprobs_T: Tensor,
    old_logprobs_T: Tensor,
    advantages_T: Tensor,
    mask_T: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float,
    denominator: float,
) -> PolicyLoss:
    """PPO's clipped loss with separate bounds and a dual clip.

    With ratio r = exp(logprobs - old) and advantage A: max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)), and for
    A < 0 at most -A dual_clip, so that one very unlikely old token cannot dominate the update.

    Sources: PPO (arXiv 1707.06347, eq. 7), asymmetric bounds from DAPO (arXiv 2503.14476), dual clip from Ye et al.
    (arXiv 1912.09729, eq. 4). mask is 0 or 1. The log ratio is clamped to [-20, 20] so that exp stays finite.
    """
    log_ratio_T = (logprobs_T - old_logprobs_T).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio_T = log_ratio_T.exp()
    clipped_T = ratio_T.clamp(1 - clip_low, 1 + clip_high)
    loss_T = torch.maximum(-advantages_T * ratio_T, -advantages_T * clipped_T)
    negative_T = advantages_T < 0
    loss_T = torch.where(negative_T, torch.minimum(loss_T, -advantages_T * dual_clip), loss_T)

    with torch.no_grad():
        above_T = (advantages_T > 0) & (ratio_T > 1 + clip_high)
        below_T = negative_T & ((ratio_T < 1 - clip_low) | (ratio_T > dual_clip))
        clip_fraction = masked_sum((above_T | below_T).to(mask_T.dtype), mask_T, denominator=denominator)
        ratio_max = (ratio_T * mask_T).max() if mask_T.numel() else torch.zeros((), device=mask_T.device)
    return PolicyLoss(
        loss=masked_sum(loss_T, mask_T, denominator=denominator), clip_fraction=clip_fraction, ratio_max=ratio_max
    )
