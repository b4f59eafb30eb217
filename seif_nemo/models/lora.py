"""Low-rank adapters on a GPTModel's frozen linear layers: W x + alpha / rank · B A x (Hu et al., arXiv 2106.09685).

Megatron fuses query, key and value into `linear_qkv`, gate and up into `linear_fc1`; PEFT has an adapter of its own for
each. So a fused layer gets the A of each of its projections, and a B whose rows lie as the rows of the layer's weight
do: each row belongs to one projection and reads that projection's rank alone. That is PEFT's function exactly, and B is
divided over ranks, saved and converted as the weight is.

Over tensor-parallel ranks:
- column-parallel layers (qkv, fc1) have A whole on each rank and B divided by rows; the gradient of A x is a part on
  each rank and is summed up;
- row-parallel layers (proj, fc2) have A divided by columns, A x is summed up, and B is whole on each rank.
With sequence parallelism the whole half sees this rank's positions only; Megatron sums its gradient over the ranks,
which the mark `sequence_parallel` asks for.

The adapters of a layer are a child of the layer and not of its linear layers, which keep their names and their state.

Shapes: S positions, B batch, H input and O output size of the layer (of this rank), P projections with an adapter, R
rank; "PR" is P · R.
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
    set_tensor_model_parallel_attributes,
)
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.mlp import apply_swiglu_sharded_factory
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint
from torch import Tensor

from seif_nemo.config.roles import LoraConfig, Projection
from seif_nemo.data.streams import derive_seed
from seif_nemo.models.architecture import Architecture
from seif_nemo.models.value_head import is_of_value_head
from seif_nemo.parallel.topology import Topology

_NAME = "lora"
_IN_ATTENTION = (Projection.q_proj, Projection.k_proj, Projection.v_proj, Projection.o_proj)
# Megatron's linear layers: the module of the decoder layer that has them, and the projections that they are made of.
LINEARS: dict[str, tuple[str, tuple[Projection, ...]]] = {
    "linear_qkv": ("self_attention", _IN_ATTENTION[:3]),
    "linear_proj": ("self_attention", (Projection.o_proj,)),
    "linear_fc1": ("mlp", (Projection.gate_proj, Projection.up_proj)),
    "linear_fc2": ("mlp", (Projection.down_proj,)),
}
_ROW_PARALLEL = ("linear_proj", "linear_fc2")


class Adapter(MegatronModule):
    """The adapter of one of Megatron's linear layers: `weight_a` [PR, H] and `weight_b` [O, R].

    `projection_O` says to which of the P each row of B belongs; -1 to none, as where only some of a fused layer's
    projections are targets: such a row does nothing and gets no gradient. None where there is but one projection.
    """

    def __init__(
        self,
        config: TransformerConfig,
        linear: torch.nn.Module,
        name: str,
        *,
        targets: Sequence[Projection],
        lora: LoraConfig,
        projection_O: Tensor | None,
        topology: Topology,
    ) -> None:
        super().__init__(config)
        weight = linear.weight
        assert isinstance(weight, Tensor)
        self.name = name
        self.targets = tuple(targets)
        self.scale = lora.scale
        self.is_row_parallel = name in _ROW_PARALLEL
        self._group = topology.tensor_group
        self._tensor = topology.tensor
        self._sequence = topology.sequence
        self._norm_eps = config.layernorm_epsilon
        self._norm_weight = (getattr(linear, "layer_norm_weight", None),)  # in a tuple: it is the layer's parameter
        like = {"dtype": weight.dtype, "device": weight.device}
        self.weight_a = torch.nn.Parameter(torch.empty(len(targets) * lora.rank, weight.shape[1], **like))
        self.weight_b = torch.nn.Parameter(torch.zeros(weight.shape[0], lora.rank, **like))
        divided, whole = (self.weight_a, self.weight_b) if self.is_row_parallel else (self.weight_b, self.weight_a)
        set_tensor_model_parallel_attributes(divided, True, 1 if self.is_row_parallel else 0, 1)
        whole.sequence_parallel = topology.sequence  # pyright: ignore[reportAttributeAccessIssue] megatron's mark
        self._own_OP: Tensor | None
        own_OP = None if projection_O is None else projection_O[:, None] == torch.arange(len(targets))
        self.register_buffer("_own_OP", None if own_OP is None else own_OP.to(**like), persistent=False)

    def forward(self, input_: Tensor) -> Tensor:
        """What is added to the layer's output for the layer's input, [S, B, H] -> [S, B, O]."""
        (norm_weight,) = self._norm_weight
        if norm_weight is not None:
            # The fused layer normalises inside. Its weight says with what, for Transformer Engine's class as for ours.
            input_ = F.rms_norm(input_, norm_weight.shape, norm_weight, self._norm_eps)
        low_SBR = F.linear(input_, self.weight_a)
        if self._tensor > 1:
            low_SBR = self._across_ranks(low_SBR)
        return F.linear(low_SBR * self.scale, self._b_of_all())

    def delta(self) -> Tensor:
        """This rank's shard of what the adapter adds to the layer's weight, fp32 [O, H]."""
        return (self._b_of_all().float() @ self.weight_a.float()) * self.scale

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: Any = (), metadata: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Megatron's description of the tensors: how they are divided, so that any layout can load them."""
        assert metadata is not None
        tensors = make_sharded_tensors_for_checkpoint(
            self.state_dict(prefix="", keep_vars=True),
            prefix,
            {"weight_a": 1} if self.is_row_parallel else {"weight_b": 0},
            sharded_offsets,
            tp_group=self._group,
            dp_cp_group=metadata["dp_cp_group"],
        )
        if self.name == "linear_fc1":  # each rank's rows are those of its gate and then those of its up projection
            key = f"{prefix}weight_b"
            tensors[key] = apply_swiglu_sharded_factory(tensors[key], sharded_offsets)
        return tensors

    def _across_ranks(self, low_SBR: Tensor) -> Tensor:
        if self.is_row_parallel:
            if self._sequence:
                return reduce_scatter_to_sequence_parallel_region(low_SBR, group=self._group)
            return reduce_from_tensor_model_parallel_region(low_SBR, group=self._group)
        if self._sequence:
            return gather_from_sequence_parallel_region(low_SBR, group=self._group)
        return copy_to_tensor_model_parallel_region(low_SBR, group=self._group)

    def _b_of_all(self) -> Tensor:
        """[O, PR]: each row has its rank in the columns of its own projection, and zeros in those of the others."""
        if self._own_OP is None:
            return self.weight_b
        return (self._own_OP[:, :, None] * self.weight_b[:, None, :]).flatten(1)

    def _add(self, _linear: object, args: tuple[Tensor, ...], output: tuple[Tensor, Tensor | None]) -> Any:
        """Forward hook of the layer, whose forward gives (output, bias to be added later or None)."""
        return output[0] + self(args[0]), output[1]  # with Transformer Engine's layers: never ran


class LayerAdapters(MegatronModule):
    """The adapters of one decoder layer, under the names of the linear layers that they belong to."""


def add_adapters(
    modules: Sequence[GPTModel], arch: Architecture, topology: Topology, lora: LoraConfig, *, seed: int
) -> None:
    """Freeze the model, but for a value head, and give its linear layers adapters that change nothing yet.

    Before `TrainableModel` takes the chunks over, so that its buffers hold what learns and nothing else. B is zero. A
    is drawn as PEFT does it (uniform, bound 1 / √H), from `seed` and the projection's name alone: the same in every
    layout.
    Raises ValueError for targets inside experts, which get no adapters.
    """
    if arch.experts is not None and not set(lora.targets) <= set(_IN_ATTENTION):
        wanted, possible = ([each.name for each in names] for names in (lora.targets, _IN_ATTENTION))
        raise ValueError(
            f"roles.lora.targets=[{','.join(wanted)}] names projections inside the experts of this model, which get no "
            f"adapters: choose [{','.join(name for name in possible if name in wanted) or ','.join(possible)}]"
        )
    for module in modules:
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(is_of_value_head(name))
        layers: Any = module.decoder.layers
        for layer in layers:
            _add_to_layer(layer, arch, topology, lora, seed)
        if module.pre_process and module.config.recompute_granularity is not None:
            module.embedding.register_forward_hook(_require_gradient)


def is_of_adapter(parameter: str) -> bool:
    """Whether this is the name of a parameter of an adapter. Hugging Face checkpoints of whole models have none."""
    return f".{_NAME}." in parameter


def frozen_names(model: GPTModel) -> set[str]:
    """Names of the parameters that do not learn: with adapters all of the base model's, else none."""
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def adapters(model: GPTModel) -> Iterator[tuple[str, int, Adapter]]:
    """Of one chunk: the name in front of each adapter's parameters, its layer's number from 0 on, the adapter."""
    layers: Any = model.decoder.layers
    for local, layer in enumerate(layers):
        for name, adapter in _of_layer(layer).items():
            yield f"decoder.layers.{local}.{_NAME}.{name}.", layer.layer_number - 1, adapter


_LINEAR_WEIGHT = re.compile(r"decoder\.layers\.(\d+)\.\w+\.(linear_\w+)\.weight")


@torch.no_grad()
def merged_weight(model: GPTModel, name: str, weight: Tensor) -> Tensor:
    """This rank's shard of a chunk's parameter `name`, with its adapter's part added; `weight` where it has none."""
    match = _LINEAR_WEIGHT.fullmatch(name)
    if match is None:
        return weight
    layers: Any = model.decoder.layers
    adapter = _of_layer(layers[int(match[1])]).get(match[2])
    return weight if adapter is None else (weight.float() + adapter.delta()).to(weight.dtype)


def projection_path(projection: Projection) -> str:
    """Of a projection inside its Hugging Face decoder layer, such as `self_attn.q_proj`."""
    return f"{'self_attn' if projection in _IN_ATTENTION else 'mlp'}.{projection.value}"


def _of_layer(layer: Any) -> dict[str, Adapter]:
    return dict(getattr(layer, _NAME).named_children()) if hasattr(layer, _NAME) else {}


def _add_to_layer(layer: Any, arch: Architecture, topology: Topology, lora: LoraConfig, seed: int) -> None:
    group = LayerAdapters(layer.config)
    for name, (parent, projections) in LINEARS.items():
        targets = [projection for projection in projections if projection in lora.targets]
        if not targets:
            continue
        linear: Any = getattr(getattr(layer, parent), name)
        places = _projections_of_rows(name, len(linear.weight), arch, topology)
        projection_O = None
        if places is not None:
            numbers = [targets.index(each) if each in targets else -1 for each in projections]
            projection_O = torch.tensor(numbers)[places]
        adapter = Adapter(
            layer.config, linear, name, targets=targets, lora=lora, projection_O=projection_O, topology=topology
        )
        _draw(adapter, layer.layer_number - 1, topology, seed)
        linear.register_forward_hook(adapter._add)
        group.add_module(name, adapter)
    layer.add_module(_NAME, group)


def _projections_of_rows(name: str, rows: int, arch: Architecture, topology: Topology) -> Tensor | None:
    """For each row of this rank's weight the number of its projection in `LINEARS`; `weights/hf_mapping.py` has why."""
    if name == "linear_qkv":  # for each key/value group its query heads, its key and its value
        place = (torch.arange(rows) + topology.tensor_rank * rows) // arch.head_dim
        return (place % (arch.heads_per_group + 2) - arch.heads_per_group + 1).clamp(min=0)
    if name == "linear_fc1":
        return torch.arange(rows) // (rows // 2)
    return None


@torch.no_grad()
def _draw(adapter: Adapter, layer: int, topology: Topology, seed: int) -> None:
    rank = len(adapter.weight_a) // len(adapter.targets)
    size = adapter.weight_a.shape[1] * (topology.tensor if adapter.is_row_parallel else 1)
    for place, projection in enumerate(adapter.targets):
        label = f"model.layers.{layer}.{projection_path(projection)}.lora_A"
        generator = torch.Generator().manual_seed(derive_seed(seed, "lora", label))
        bound = 1 / math.sqrt(size)
        whole = torch.empty(rank, size).uniform_(-bound, bound, generator=generator)
        own = whole.chunk(topology.tensor, 1)[topology.tensor_rank] if adapter.is_row_parallel else whole
        adapter.weight_a[place * rank : (place + 1) * rank] = own


def _require_gradient(_module: object, _args: object, output: Tensor) -> None:
    """A layer that is computed again in the backward pass is told to by its input, whose embedding is frozen."""
    if torch.is_grad_enabled():
        output.requires_grad_()
