"""A model's chunks without gradients and optimizer: for what only reads or writes weights."""

from collections.abc import Sequence

from megatron.core.models.gpt import GPTModel
from megatron.core.transformer import TransformerConfig
from torch import Tensor

from seif_nemo.parallel.topology import Topology


class PlainModel:
    """What checkpoints of weights need of a `TrainableModel`, in the memory of the weights alone."""

    def __init__(self, modules: Sequence[GPTModel], topology: Topology) -> None:
        self.modules = list(modules)
        self.config: TransformerConfig = modules[0].config
        self.topology = topology

    def parameters(self) -> list[Tensor]:
        """Of all chunks."""
        return [parameter for module in self.modules for parameter in module.parameters()]

    def fp8_buffers(self) -> list[Tensor]:
        """None: it computes nothing."""
        return []
