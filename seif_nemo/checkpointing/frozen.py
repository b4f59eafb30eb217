"""The frozen base model that adapters go with: which one it is, and that it still is what was loaded."""

from collections.abc import Sequence

import torch
from megatron.core.models.gpt import GPTModel
from torch import Tensor

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32}


class FrozenBase:
    """This rank's frozen parameters, and the sums of their bits when they were loaded.

    `identity` names the base model whatever the layout; checkpoints of adapters carry it. The sums cost one read of the
    weights where they lie: less than a copy to the host, of which a cryptographic digest would need one for each check.
    Any one change is seen, and so are all but 1 in 2^64 of the others.
    """

    def __init__(self, modules: Sequence[GPTModel], identity: str) -> None:
        """To be made when the base model is loaded. `identity` is a digest of its files."""
        self.identity = identity
        self._parameters = {
            f"chunk {chunk}: {name}": parameter.detach()
            for chunk, module in enumerate(modules)
            for name, parameter in module.named_parameters()
            if not parameter.requires_grad
        }
        self._sums = self._sum()

    @property
    def nbytes(self) -> int:
        return sum(parameter.nbytes for parameter in self._parameters.values())

    def fault(self) -> str | None:
        """What is wrong with this rank's part of the base model, if anything is."""
        found = self._sum()
        for name, before, now in zip(self._parameters, self._sums, found, strict=True):
            if before != now:
                return f"{name} of the frozen base model has changed since it was loaded: its adapters fit it no more"
        return None

    def _sum(self) -> list[int]:
        if not self._parameters:
            return []
        return torch.stack([_bit_sum(parameter) for parameter in self._parameters.values()]).tolist()


def _bit_sum(tensor: Tensor) -> Tensor:
    """Of the elements as integers, each multiplied by its place, modulo 2^64; without a copy of the tensor."""
    return tensor.view(_BITS[tensor.element_size()]).sum(dtype=torch.int64)
