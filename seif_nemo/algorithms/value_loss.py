"""The critic's loss: squared error with PPO's clip of the value (Schulman et al. 2017, arXiv 1707.06347).

The paper's appendix leaves the clip out; it is that of its authors' code (openai/baselines, ppo2/model.py).

Shape suffixes: T tokens.
"""

import torch
from torch import Tensor


def clipped_value_losses(
    values_T: Tensor, old_values_T: Tensor, returns_T: Tensor, *, clip: float
) -> tuple[Tensor, Tensor]:
    """(losses, which of them the clip took the gradient of) per token.

    max((V - R)², (V_clipped - R)²) / 2, where V_clipped is V within `clip` (inf: no clip) of the value before the
    update. The error that counts is the larger one, so a value cannot gain from moving further than that.
    """
    bounded_T = torch.minimum(torch.maximum(values_T, old_values_T - clip), old_values_T + clip)
    errors_T, bounded_errors_T = (values_T - returns_T).square(), (bounded_T - returns_T).square()
    with torch.no_grad():
        clipped_T = (bounded_T != values_T) & (bounded_errors_T > errors_T)
    return torch.where(clipped_T, bounded_errors_T, errors_T) / 2, clipped_T
