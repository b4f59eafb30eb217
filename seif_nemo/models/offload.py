"""Adam's update on the host: its state and the main parameters leave the device, gradients come, weights go back.

ZeRO-Offload (arXiv 2101.06840). Megatron-core's own offload (`HybridDeviceOptimizer`) makes its tensors anew at every
load and knows no flat buffers, which the role bank needs; so Megatron's distributed optimizer stays and only the
gradients that it is given change.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from megatron.core.optimizer import ChainedOptimizer
from megatron.core.tensor_parallel import copy_tensor_model_parallel_attributes
from torch import Tensor


class HostGradients:
    """Gradients of this rank's shard: on the device for the norm and the clipping, then on the host for Adam.

    The optimizers' main parameters must be host tensors before the first update; their Adam must be torch's.
    """

    def __init__(self, optimizer: ChainedOptimizer) -> None:
        self._on_device: list[SimpleNamespace] = []  # what Megatron's norm and clipping look at of a parameter
        self._main: list[Tensor] = []
        for chained in optimizer.chained_optimizers:
            stand_ins = [_stand_in(chained, *pair) for pair in _pairs(chained)]
            chained.get_parameters = lambda stand_ins=stand_ins: stand_ins  # pyright: ignore[reportAttributeAccessIssue]
            self._on_device += stand_ins
            self._main += [main for _, main in _pairs(chained)]
        pinned = torch.cuda.is_available()  # true never ran on a GPU
        numel = sum(main.numel() for main in self._main)
        sizes = [main.numel() for main in self._main]
        self._on_host: Sequence[Tensor] = torch.empty(numel, device="cpu", pin_memory=pinned).split(sizes)

    def collect(self) -> None:
        """Take the reduced gradients from the gradient buffers, in place of the optimizer's `prepare_grads`."""
        for stand_in in self._on_device:
            stand_in.grad = stand_in.model_parameter.main_grad.view(-1)[stand_in.start : stand_in.end]

    def to_host(self) -> None:
        """Give Adam the clipped gradients."""
        for stand_in, main, grad in zip(self._on_device, self._main, self._on_host, strict=True):
            main.grad = grad.copy_(stand_in.grad, non_blocking=True)
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # never ran on a GPU


def use_torch_adam(optimizer: ChainedOptimizer) -> None:
    """Replace Transformer Engine's or apex' Adam, which has no kernel for the host, by torch's AdamW."""
    chained_optimizers: list[Any] = optimizer.chained_optimizers
    for chained in chained_optimizers:
        if not (chained.is_stub_optimizer or isinstance(chained.optimizer, torch.optim.Adam)):
            chained.optimizer = torch.optim.AdamW(chained.optimizer.param_groups)  # never ran with such a library


def _pairs(chained: Any) -> list[tuple[Any, Tensor]]:
    """Each bf16 parameter of the model and the fp32 shard of it that this rank updates."""
    assert not any(chained.model_fp32_groups), "float32 weights are their own main parameters"
    groups = zip(chained.model_float16_groups, chained.shard_fp32_from_float16_groups, strict=True)
    return [pair for models, mains in groups for pair in zip(models, mains, strict=True)]


def _stand_in(chained: Any, model_parameter: Any, main: Any) -> SimpleNamespace:
    place = chained._get_model_param_range_map(model_parameter)["param"]
    stand_in = SimpleNamespace(model_parameter=model_parameter, start=place.start, end=place.end, grad=None)
    copy_tensor_model_parallel_attributes(stand_in, main)
    if hasattr(main, "shared"):
        stand_in.shared = main.shared
    return stand_in
