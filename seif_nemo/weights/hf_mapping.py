"""Which Hugging Face tensors a Megatron parameter is made of, and how it is divided over tensor-parallel ranks.

The families share their tensor names but for those of experts, so one table serves them. Each kind of parameter is a
`Piece` that can read one rank's shard from slices of the Hugging Face tensors, and can put the shards of all ranks
together again.
Shapes: V vocabulary, H hidden, F feed-forward, N query heads, K key/value heads, D head size.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from seif_nemo.models.architecture import Architecture, Experts

_ROWS_AT_ONCE = 4096  # of an embedding
_EXPERT = re.compile(r"\.mlp\.experts\.local_experts\.(\d+)\.")


class Slices(Protocol):
    """A Hugging Face checkpoint of which parts can be read."""

    def read(self, name: str, rows: slice, columns: slice | None = None) -> Tensor:
        """Rows (and columns) of a tensor, in its own dtype."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where a shard stands in the Hugging Face tensors that it is a part of, laid one below the other."""

    rows: Tensor  # the number of each of its rows there, int64; -1: padding
    first_column: int = 0


class Piece(Protocol):
    """How one Megatron parameter relates to Hugging Face tensors."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Hugging Face name -> whole shape, of every tensor this parameter is made of."""
        ...

    def load(self, files: Slices, tensor_rank: int, tensor: int) -> Tensor:
        """The shard of `tensor_rank` of `tensor` ranks."""
        ...

    def merge(self, shards: Sequence[Tensor]) -> dict[str, Tensor]:
        """Whole Hugging Face tensors from the shards of all tensor-parallel ranks, in order."""
        ...

    def place(self, tensor_rank: int, tensor: int) -> Place:
        """Of the shard of `tensor_rank` of `tensor` ranks."""
        ...


@dataclass(frozen=True, slots=True)
class Replicated:
    """The weight of a norm or of a router, a bias behind a sum over ranks: the same on every rank."""

    name: str
    shape: tuple[int, ...]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {self.name: self.shape}

    def load(self, files: Slices, tensor_rank: int, tensor: int) -> Tensor:
        return files.read(self.name, slice(0, self.shape[0]))

    def merge(self, shards: Sequence[Tensor]) -> dict[str, Tensor]:
        return {self.name: shards[0]}

    def place(self, tensor_rank: int, tensor: int) -> Place:
        return Place(torch.arange(self.shape[0]))


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """[V, H], rows divided after padding with zeros to `padded` rows."""

    name: str
    rows: int
    padded: int
    columns: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {self.name: (self.rows, self.columns)}

    def load(self, files: Slices, tensor_rank: int, tensor: int) -> Tensor:
        per_rank = self.padded // tensor
        start = min(tensor_rank * per_rank, self.rows)
        end = min(start + per_rank, self.rows)
        if end - start == per_rank:
            return files.read(self.name, slice(start, end))
        shard = files.read(self.name, slice(start, start)).new_zeros(per_rank, self.columns)
        for first in range(start, end, _ROWS_AT_ONCE):  # it may be the largest tensor: there is no room for it twice
            rows = slice(first, min(first + _ROWS_AT_ONCE, end))
            shard[rows.start - start : rows.stop - start] = files.read(self.name, rows)
        return shard

    def merge(self, shards: Sequence[Tensor]) -> dict[str, Tensor]:
        return {self.name: torch.cat(list(shards))[: self.rows]}

    def place(self, tensor_rank: int, tensor: int) -> Place:
        per_rank = self.padded // tensor
        numbers = torch.arange(tensor_rank * per_rank, (tensor_rank + 1) * per_rank)
        return Place(torch.where(numbers < self.rows, numbers, -1))


@dataclass(frozen=True, slots=True)
class Rows:
    """Tensors [rows, columns] stacked in each rank's shard, each divided by rows: [gate of rank; up of rank]."""

    names: tuple[str, ...]
    rows: int
    columns: int | None  # None: biases

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(self.names, (self.rows,) if self.columns is None else (self.rows, self.columns))

    def load(self, files: Slices, tensor_rank: int, tensor: int) -> Tensor:
        part = self.rows // tensor
        return torch.cat([files.read(name, slice(tensor_rank * part, (tensor_rank + 1) * part)) for name in self.names])

    def merge(self, shards: Sequence[Tensor]) -> dict[str, Tensor]:
        parts = [shard.chunk(len(self.names)) for shard in shards]
        return {name: torch.cat([part[i] for part in parts]) for i, name in enumerate(self.names)}

    def place(self, tensor_rank: int, tensor: int) -> Place:
        part = self.rows // tensor
        first = torch.arange(len(self.names))[:, None] * self.rows + tensor_rank * part
        return Place((first + torch.arange(part)).flatten())


@dataclass(frozen=True, slots=True)
class Columns:
    """[rows, columns], columns divided: the input side of a row-parallel linear."""

    name: str
    rows: int
    columns: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {self.name: (self.rows, self.columns)}

    def load(self, files: Slices, tensor_rank: int, tensor: int) -> Tensor:
        part = self.columns // tensor
        return files.read(self.name, slice(0, self.rows), slice(tensor_rank * part, (tensor_rank + 1) * part))

    def merge(self, shards: Sequence[Tensor]) -> dict[str, Tensor]:
        return {self.name: torch.cat(list(shards), dim=1)}

    def place(self, tensor_rank: int, tensor: int) -> Place:
        return Place(torch.arange(self.rows), tensor_rank * (self.columns // tensor))


@dataclass(frozen=True, slots=True)
class QueryKeyValue:
    """Query, key and value, interleaved by key/value group: for each group its N/K query heads, its key, its value.

    The rows [K * (N/K + 2) * D] are divided evenly over ranks. With more ranks than groups a rank holds a part of one
    group, as megatron-core's SelfAttention expects. `columns` is H, or None for a bias.
    """

    names: tuple[str, str, str]
    groups: int
    heads_per_group: int
    head_dim: int
    columns: int | None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        tail = () if self.columns is None else (self.columns,)
        heads = (self.groups * self.heads_per_group, self.groups, self.groups)
        return {name: (count * self.head_dim, *tail) for name, count in zip(self.names, heads, strict=True)}

    def load(self, files: Slices, tensor_rank: int, tensor: int) -> Tensor:
        group_rows = (self.heads_per_group + 2) * self.head_dim
        part = self.groups * group_rows // tensor
        start, end = tensor_rank * part, (tensor_rank + 1) * part
        first, last = start // group_rows, -(-end // group_rows)  # groups that this shard touches
        sections: list[Tensor] = []
        for name, heads in zip(self.names, (self.heads_per_group, 1, 1), strict=True):
            rows = files.read(name, slice(first * heads * self.head_dim, last * heads * self.head_dim))
            sections.append(rows.view(last - first, heads * self.head_dim, *rows.shape[1:]))
        whole = torch.cat(sections, dim=1).flatten(0, 1)
        return whole[start - first * group_rows : end - first * group_rows]

    def merge(self, shards: Sequence[Tensor]) -> dict[str, Tensor]:
        whole = torch.cat(list(shards))
        grouped = whole.view(self.groups, (self.heads_per_group + 2) * self.head_dim, *whole.shape[1:])
        sections = grouped.split([self.heads_per_group * self.head_dim, self.head_dim, self.head_dim], dim=1)
        return {name: section.flatten(0, 1) for name, section in zip(self.names, sections, strict=True)}

    def place(self, tensor_rank: int, tensor: int) -> Place:
        groups, per_group = self.groups, self.heads_per_group
        sizes = [groups * heads * self.head_dim for heads in (per_group, 1, 1)]
        sections = [numbers.view(groups, -1) for numbers in torch.arange(sum(sizes)).split(sizes)]
        return Place(torch.cat(sections, dim=1).flatten().chunk(tensor)[tensor_rank])


def pieces_of_chunk(
    arch: Architecture, padded_vocab: int, layers: range, *, first: bool, last: bool
) -> Iterator[tuple[str, Piece]]:
    """Megatron parameter name (as the chunk's GPTModel names it) and its piece, in the order of Hugging Face files.

    `layers` are the global numbers of the chunk's layers, from 0. Experts come with their global numbers too, under
    `mlp.experts.local_experts.`, and their pieces are divided over the ranks of one expert. With tied embeddings the
    last of several chunks holds a second copy of the embedding as its output weight.
    """
    embedding = Vocabulary("model.embed_tokens.weight", arch.vocab_size, padded_vocab, arch.hidden_size)
    if first:
        yield "embedding.word_embeddings.weight", embedding
    for local, layer in enumerate(layers):
        for name, piece in _layer_pieces(arch, layer):
            yield f"decoder.layers.{local}.{name}", piece
    if last:
        yield "decoder.final_layernorm.weight", Replicated("model.norm.weight", (arch.hidden_size,))
        if not arch.tied_embeddings:
            head = Vocabulary("lm_head.weight", arch.vocab_size, padded_vocab, arch.hidden_size)
            yield "output_layer.weight", head
        elif not first:
            yield "output_layer.weight", embedding


def _layer_pieces(arch: Architecture, layer: int) -> Iterator[tuple[str, Piece]]:
    prefix, hidden = f"model.layers.{layer}", arch.hidden_size
    attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"

    def qkv(kind: str, columns: int | None) -> QueryKeyValue:
        names = (f"{attention}.q_proj.{kind}", f"{attention}.k_proj.{kind}", f"{attention}.v_proj.{kind}")
        return QueryKeyValue(names, arch.num_kv_heads, arch.heads_per_group, arch.head_dim, columns)

    yield "self_attention.linear_qkv.layer_norm_weight", Replicated(f"{prefix}.input_layernorm.weight", (hidden,))
    yield "self_attention.linear_qkv.weight", qkv("weight", hidden)
    if arch.qkv_bias:
        yield "self_attention.linear_qkv.bias", qkv("bias", None)
    if arch.qk_norm:
        yield "self_attention.q_layernorm.weight", Replicated(f"{attention}.q_norm.weight", (arch.head_dim,))
        yield "self_attention.k_layernorm.weight", Replicated(f"{attention}.k_norm.weight", (arch.head_dim,))
    output = Columns(f"{attention}.o_proj.weight", hidden, arch.num_heads * arch.head_dim)
    yield "self_attention.linear_proj.weight", output
    if arch.output_bias:
        yield "self_attention.linear_proj.bias", Replicated(f"{attention}.o_proj.bias", (hidden,))
    norm = Replicated(f"{prefix}.post_attention_layernorm.weight", (hidden,))
    if arch.experts is not None:
        yield "pre_mlp_layernorm.weight", norm
        yield from _expert_pieces(arch, arch.experts, prefix)
        return
    yield "mlp.linear_fc1.layer_norm_weight", norm
    gate_up = (f"{mlp}.gate_proj.weight", f"{mlp}.up_proj.weight")
    yield "mlp.linear_fc1.weight", Rows(gate_up, arch.ffn_hidden_size, hidden)
    if arch.mlp_bias:
        gate_up_bias = (f"{mlp}.gate_proj.bias", f"{mlp}.up_proj.bias")
        yield "mlp.linear_fc1.bias", Rows(gate_up_bias, arch.ffn_hidden_size, None)
    yield "mlp.linear_fc2.weight", Columns(f"{mlp}.down_proj.weight", hidden, arch.ffn_hidden_size)
    if arch.mlp_bias:
        yield "mlp.linear_fc2.bias", Replicated(f"{mlp}.down_proj.bias", (hidden,))


# Of each family with experts: their module, and its gate, up and down projections.
_EXPERT_NAMES = {
    "mixtral": ("block_sparse_moe", "w1", "w3", "w2"),
    "qwen3_moe": ("mlp", "gate_proj", "up_proj", "down_proj"),
}


def _expert_pieces(arch: Architecture, experts: Experts, prefix: str) -> Iterator[tuple[str, Piece]]:
    module, gate, up, down = _EXPERT_NAMES[arch.family]
    yield "mlp.router.weight", Replicated(f"{prefix}.{module}.gate.weight", (experts.count, arch.hidden_size))
    for number in range(experts.count):
        expert = f"{prefix}.{module}.experts.{number}"
        names = (f"{expert}.{gate}.weight", f"{expert}.{up}.weight")
        local = f"mlp.experts.local_experts.{number}"
        yield f"{local}.linear_fc1.weight", Rows(names, experts.ffn_hidden_size, arch.hidden_size)
        down_columns = Columns(f"{expert}.{down}.weight", arch.hidden_size, experts.ffn_hidden_size)
        yield f"{local}.linear_fc2.weight", down_columns


def expert_number(name: str) -> int | None:
    """The number of the expert that a parameter of `pieces_of_chunk` belongs to; None for all other parameters."""
    match = _EXPERT.search(name)
    return None if match is None else int(match[1])


def expert_parameter(name: str, number: int, *, grouped: bool) -> str:
    """The name that a rank's model has for a parameter of what is its expert `number`.

    `grouped`: Transformer Engine's grouped linear holds all experts of a rank, with their numbers behind the names.
    """
    if grouped:  # never ran with Transformer Engine
        return _EXPERT.sub(".mlp.experts.", name) + str(number)
    return _EXPERT.sub(f".mlp.experts.local_experts.{number}.", name)


def expected_shapes(arch: Architecture) -> dict[str, tuple[int, ...]]:
    """Every tensor of the Hugging Face checkpoint and its shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    for _, piece in pieces_of_chunk(arch, arch.vocab_size, range(arch.num_layers), first=True, last=True):
        shapes.update(piece.shapes())
    return shapes


_IGNORED = re.compile(r"\.rotary_emb\.inv_freq$")  # a constant that old Llama checkpoints hold and transformers ignores


def is_ignored(name: str) -> bool:
    """Whether a tensor on disk is no weight and may be passed over."""
    return _IGNORED.search(name) is not None
