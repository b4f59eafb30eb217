"""GSPO (Zheng et al. 2025, arXiv 2507.18071, eq. 5 to 7): ratio and clip per sequence, as the reward is.

Shape suffixes: T tokens, R responses of a micro-batch.
"""

import torch
from torch import Tensor

from seif_nemo.algorithms.kl import MAX_LOG_RATIO
from seif_nemo.algorithms.losses import TokenLosses


def sequence_means(values_T: Tensor, rows_T: Tensor, num_rows: int) -> Tensor:
    """Mean over the tokens of each response, [R]; 0 for a response without tokens. `rows_T` names each token's."""
    sums_R = values_T.new_zeros(num_rows).index_add(0, rows_T, values_T)
    counts_R = values_T.new_zeros(num_rows).index_add(0, rows_T, torch.ones_like(values_T))
    return sums_R / counts_R.clamp(min=1)


def gspo_losses(
    logprobs_T: Tensor,
    old_logprobs_T: Tensor,
    advantages_T: Tensor,
    rows_T: Tensor,
    num_rows: int,
    *,
    clip_low: float,
    clip_high: float,
) -> TokenLosses:
    """max(-A s, -A clip(s)) with s = exp(mean over the response of logprobs - old), the same for all its tokens.

    With the mean over sequences (means.py) this is the paper's objective. Its bounds are far narrower than PPO's: the
    paper has 3e-4 and 4e-4.
    """
    means_R = sequence_means(logprobs_T - old_logprobs_T, rows_T, num_rows)
    ratios_T = means_R.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()[rows_T]
    losses_T = torch.maximum(-advantages_T * ratios_T, -advantages_T * ratios_T.clamp(1 - clip_low, 1 + clip_high))
    with torch.no_grad():
        above_T = (advantages_T > 0) & (ratios_T > 1 + clip_high)
        below_T = (advantages_T < 0) & (ratios_T < 1 - clip_low)
    return TokenLosses(losses_T, above_T | below_T, ratios_T.detach())
