"""A model's chunks without gradients and optimizer: for what only reads or writes weights."""

from collections.abc import Iterator, Sequence

from megatron.core.models.gpt import GPTModel
from megatron.core.transformer import TransformerConfig
from torch import Tensor

from seif_nemo.parallel.topology import Topology


class PlainModel:
    """What digests and checkpoints of weights need of a `TrainableModel`, in the memory of the weights alone."""

    def __init__(self, modules: Sequence[GPTModel], topology: Topology) -> None:
        self.modules = list(modules)
        self.config: TransformerConfig = modules[0].config
        self.topology = topology

    def weight_buffers(self) -> list[Tensor]:
        """The parameters, one by one."""
        return [parameter.detach() for module in self.modules for parameter in module.parameters()]

    def weight_views(self, buffers: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Each parameter and its place in buffers like `weight_buffers`."""
        own = [parameter for module in self.modules for parameter in module.parameters()]
        yield from zip(own, buffers, strict=True)
