"""The critic's output: one number per position, from the hidden states that the output layer gets.

Each tensor-parallel rank has the whole head and computes all of its values, so its gradient is whole on each, too: the
hidden states must come to it without Megatron's sum over gradients of tensor-parallel ranks. Weight and bias have one
dimension, so weight decay leaves them alone.

Shape suffixes: C positions, H hidden.
"""

from typing import Any

import torch
from megatron.core.models.gpt import GPTModel
from torch import Tensor

_NAME = "value_head"


class ValueHead(torch.nn.Module):
    """A linear layer to one output, zero at first: a new critic expects nothing."""

    def __init__(self, hidden_size: int, like: Tensor) -> None:
        """On the device and in the dtype of `like`."""
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(hidden_size, dtype=like.dtype, device=like.device))
        self.bias = torch.nn.Parameter(torch.zeros(1, dtype=like.dtype, device=like.device))

    def forward(self, hidden_CH: Tensor) -> Tensor:
        """Values, fp32 [C]."""
        return hidden_CH.float() @ self.weight.float() + self.bias.float()


def add_value_head(model: GPTModel) -> None:
    """Give the model's last chunk a value head. Its own forward does not use it; its checkpoints carry it."""
    model.add_module(_NAME, ValueHead(model.config.hidden_size, like=next(model.parameters())))


def value_head(model: GPTModel) -> ValueHead:
    """Of the last chunk of a model that was built with one."""
    head: Any = getattr(model, _NAME)
    assert isinstance(head, ValueHead)
    return head


def is_of_value_head(parameter: str) -> bool:
    """Whether this is the name of one of its parameters. Hugging Face checkpoints have none of them."""
    return parameter.startswith(f"{_NAME}.")
