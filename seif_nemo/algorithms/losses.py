"""What all policy losses return, and how tokens become one number.

Everything is a weighted sum over tokens divided by a denominator that the caller gives. With weight and denominator of
the whole mini-batch (means.py), the parts of micro-batches and data-parallel ranks simply add up: micro-batching,
packing and parallelism change nothing.

Shape suffixes: T tokens (one entry per response token; padding has weight 0).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class TokenLosses:
    """A policy loss, token by token."""

    losses_T: Tensor  # differentiable
    clipped_T: Tensor  # bool: tokens whose gradient a clip removed
    ratios_T: Tensor  # policy / old policy, without gradient


def weighted_sum(values_T: Tensor, weights_T: Tensor, *, denominator: float) -> Tensor:
    """Sum of values x weights, divided by the denominator (scalar). A token of weight 0 counts for nothing."""
    return (torch.where(weights_T == 0, 0.0, values_T) * weights_T).sum() / denominator
