"""CISPO (MiniMax-M1, arXiv 2506.13585, eq. 4 and 5): the importance weight is clipped, the gradient of a token never.

Shape suffixes: T tokens.
"""

from torch import Tensor

from seif_nemo.algorithms.kl import MAX_LOG_RATIO
from seif_nemo.algorithms.losses import TokenLosses


def cispo_losses(
    logprobs_T: Tensor, old_logprobs_T: Tensor, advantages_T: Tensor, *, clip_low: float, clip_high: float
) -> TokenLosses:
    """-A clip(r, 1 - clip_low, 1 + clip_high) log policy, with no gradient through the ratio r.

    The paper sets no lower bound (`clip_low` = 1). `clipped_T` says where the weight was cut; the gradient stays.
    """
    ratios_T = (logprobs_T.detach() - old_logprobs_T).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    weights_T = ratios_T.clamp(1 - clip_low, 1 + clip_high)
    return TokenLosses(-advantages_T * weights_T * logprobs_T, weights_T != ratios_T, ratios_T)
