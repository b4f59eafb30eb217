"""The output projection of a GPTModel, set aside: its input and its weight instead of its logits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from megatron.core.models.gpt import GPTModel
from torch import Tensor


@contextmanager
def hidden_instead_of_logits(model: GPTModel, prepare: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside, the last stage's forward gives `prepare(hidden states)` where it would give logits.

    Hidden states come as the output layer gets them, [positions, rows, hidden] (with sequence parallelism this rank's
    positions); `prepare` gives [T, 1, H], which the model hands out as [1, T, H]. Of a stage without an output layer
    nothing changes. megatron.core.models.gpt.GPTModel._postprocess has no switch of its own for this.
    """
    layer: Any = getattr(model, "output_layer", None)
    if layer is None:
        yield
        return

    def forward(hidden_states: Tensor, *_: object, **__: object) -> tuple[Tensor, None]:
        return prepare(hidden_states), None

    layer.forward = forward  # on the instance: the class and other models stay as they are
    try:
        yield
    finally:
        del layer.forward


def gives_hidden(layer: torch.nn.Module) -> bool:
    """Whether this output layer is set aside just now, so that what it gives are no logits."""
    return "forward" in vars(layer)


def output_weight(model: GPTModel) -> torch.nn.Parameter:
    """This rank's rows of the output projection, which may be the embedding. Of the last stage only."""
    shared: Any = model.shared_embedding_or_output_weight() if model.share_embeddings_and_output_weights else None
    weight: Any = model.output_layer.weight if shared is None else shared
    assert isinstance(weight, torch.nn.Parameter)
    return weight
