"""PPO's clipped loss of the policy.

Sources: PPO (Schulman et al. 2017, arXiv 1707.06347, eq. 7), asymmetric bounds from DAPO (arXiv 2503.14476), dual clip
from Ye et al. (arXiv 1912.09729, eq. 4).

Shape suffixes: T tokens.
"""

import torch
from torch import Tensor

from seif_nemo.algorithms.kl import MAX_LOG_RATIO
from seif_nemo.algorithms.losses import TokenLosses


def clipped_losses(
    logprobs_T: Tensor,
    old_logprobs_T: Tensor,
    advantages_T: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float,
) -> TokenLosses:
    """The clipped loss with separate bounds and a dual clip.

    With ratio r = exp(logprobs - old) and advantage A: max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)), and for
    A < 0 at most -A dual_clip, so that one very unlikely old token cannot dominate the update. The log ratio is clamped
    to [-20, 20] so that exp stays finite.
    """
    ratios_T = (logprobs_T - old_logprobs_T).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    bounded_T = ratios_T.clamp(1 - clip_low, 1 + clip_high)
    losses_T = torch.maximum(-advantages_T * ratios_T, -advantages_T * bounded_T)
    negative_T = advantages_T < 0
    losses_T = torch.where(negative_T, torch.minimum(losses_T, -advantages_T * dual_clip), losses_T)
    with torch.no_grad():
        above_T = (advantages_T > 0) & (ratios_T > 1 + clip_high)
        below_T = negative_T & ((ratios_T < 1 - clip_low) | (ratios_T > dual_clip))
    return TokenLosses(losses_T, above_T | below_T, ratios_T.detach())
