"""Which rectangular pieces of which global tensors this rank writes into a checkpoint, and where they lie in memory.

Weights: replicas share them out, as Megatron's own fully parallel save does. Optimizer state: each rank writes the part
of each parameter that it updates. That part is a range of the flattened parameter, so at most 2n - 1 boxes of n axes.
Nothing is gathered: Megatron's `fully_reshardable` format, which its loader reads at any layout, has the same keys and
global shapes, but is made by gathering all moments of a replica group on each of its ranks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.exchange_utils import determine_main_replica_uniform_distribution
from megatron.core.dist_checkpointing.mapping import ShardedTensor, apply_factories, is_main_replica
from megatron.core.dist_checkpointing.strategies.fully_parallel import (
    distribute_main_replicas_with_precomputed_distribution,
)
from megatron.core.optimizer import ChainedOptimizer

from seif_nemo.parallel.topology import Topology

STATE_NAMES = ("param", "exp_avg", "exp_avg_sq")  # as Megatron calls main parameters and Adam's moments


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A box of a global tensor. `source` is a view of the live values, of the box's size and dtype."""

    key: str
    global_shape: tuple[int, ...]
    offset: tuple[int, ...]
    shape: tuple[int, ...]
    source: torch.Tensor


def weight_pieces(models: dict[str, Any], topology: Topology) -> list[Piece]:
    """Pieces of the model's own tensors. Collective: replicas agree about who writes what."""
    # Copies: who is a main replica is written into them.
    state = {name: {key: replace(part) for key, part in tensors.items()} for name, tensors in models.items()}
    storages = {_storage(part.data) for part in nested_values(state)}  # before factories split them
    apply_factories(state)
    if topology.replicas > 1:
        shares = determine_main_replica_uniform_distribution(state, topology.replica_group)
        distribute_main_replicas_with_precomputed_distribution(state, topology.replica_group, shares)
    pieces: list[Piece] = []
    for tensor in nested_values(state):
        assert isinstance(tensor, ShardedTensor), f"{tensor}: only tensors are saved"
        assert tensor.data is not None and _storage(tensor.data) in storages, f"{tensor.key} is a copy, not the weights"
        if is_main_replica(tensor.replica_id):
            pieces.append(_piece(tensor, tensor.data.detach()))
    return pieces


def optimizer_pieces(optimizer: ChainedOptimizer, models: dict[str, Any], metadata: dict[str, Any]) -> list[Piece]:
    """Pieces of main parameters and moments that this rank's shard of the distributed optimizer holds."""
    chained: list[Any] = optimizer.chained_optimizers
    return [piece for one in chained if not one.is_stub_optimizer for piece in _shard_pieces(one, models, metadata)]


def live_addresses(optimizer: ChainedOptimizer | None, modules: Sequence[torch.nn.Module]) -> tuple[int, ...]:
    """Where everything that is saved lies. If this changes, pieces made before are of memory that nobody uses."""
    found = [tensor.data_ptr() for module in modules for tensor in (*module.parameters(), *module.buffers())]
    chained: list[Any] = [] if optimizer is None else optimizer.chained_optimizers
    for one in chained:
        if not one.is_stub_optimizer:
            for parameter in one.model_param_group_index_map:
                states = one._get_main_param_and_optimizer_states(parameter)
                found += [states[name].data_ptr() for name in STATE_NAMES]
    return tuple(found)


def _shard_pieces(one: Any, models: dict[str, Any], metadata: dict[str, Any]) -> Iterator[Piece]:
    # With `is_loading` Megatron makes empty tensors of the right keys and places, and gathers nothing.
    templates = one.sharded_param_state_fully_reshardable(models, is_loading=True, metadata=metadata)
    parameters = [parameter for buffer in one.buffers for parameter in buffer.param_index_map]
    for index, parameter in enumerate(parameters):
        if parameter not in one.model_param_group_index_map:
            continue  # the shards of other ranks have all of it
        held = one._get_model_param_range_map(parameter)["param"]
        states = one._get_main_param_and_optimizer_states(parameter)
        for name in STATE_NAMES:
            template = templates[index][name]
            first = template.data.storage_offset()
            split = {"it": template}
            apply_factories(split)
            for tensor in nested_values(split):
                assert _storage(tensor.data) == _storage(template.data) and tensor.data.is_contiguous(), tensor.key
                if any(tensor.replica_id[:-1]):
                    continue  # a tensor-parallel or pipeline neighbour has the same values and writes them
                begin = tensor.data.storage_offset() - first
                low, high = max(begin, held.start), min(begin + tensor.data.numel(), held.end)
                if low < high:
                    values = states[name].detach().view(-1)[low - held.start : high - held.start]
                    yield from _boxes_of_range(tensor, values, low - begin, high - begin)


def _boxes_of_range(tensor: ShardedTensor, values: torch.Tensor, low: int, high: int) -> Iterator[Piece]:
    for corner, shape in flat_range_boxes(tensor.local_shape, low, high):
        size = prod(shape)
        yield _piece(tensor, values[:size].view(shape), corner)
        values = values[size:]


def flat_range_boxes(shape: tuple[int, ...], low: int, high: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Corners and shapes of boxes which, one after the other, are elements `low` to `high` of a tensor in row order."""
    if len(shape) <= 1:
        yield (low,) * len(shape), (high - low,) * len(shape)
        return
    row = prod(shape[1:])
    first, last = low // row, (high - 1) // row
    if first == last and high - low < row:
        for corner, box in flat_range_boxes(shape[1:], low - first * row, high - first * row):
            yield (first, *corner), (1, *box)
        return
    whole_first, whole_last = -(-low // row), high // row
    if low < whole_first * row:
        yield from flat_range_boxes(shape, low, whole_first * row)
    if whole_first < whole_last:
        yield (whole_first, *(0 for _ in shape[1:])), (whole_last - whole_first, *shape[1:])
    if whole_last * row < high:
        yield from flat_range_boxes(shape, whole_last * row, high)


def _piece(tensor: ShardedTensor, source: torch.Tensor, corner: tuple[int, ...] | None = None) -> Piece:
    prepended = tensor.prepend_axis_num
    inner = tensor.global_offset[prepended:]
    place = inner if corner is None else tuple(a + b for a, b in zip(inner, corner, strict=True))
    return Piece(
        key=tensor.key,
        global_shape=tuple(tensor.global_shape),
        offset=(*tensor.global_offset[:prepended], *place),
        shape=((1,) * prepended) + tuple(source.shape),
        source=source.view(((1,) * prepended) + tuple(source.shape)),
    )


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
