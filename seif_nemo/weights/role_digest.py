"""The digest of a model's weights: the same at every layout, and the same for a Hugging Face directory of them.

It is made of the sums (`parallel/tensor_sums.py`) of each Hugging Face tensor. Each rank sums the rows that it holds,
and what the ranks found is added up. Of several ranks that hold the same shard the first counts; that the others hold
the same is seen on the way: the sums over all copies must be so many times those of the first ones.

Shapes: T Hugging Face tensors, L lanes, R rows of one shard.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.distributed as dist
from megatron.core.models.gpt import GPTModel
from torch import Tensor

from seif_nemo.config.roles import LoraConfig
from seif_nemo.models.architecture import Architecture, read_architecture
from seif_nemo.models.value_head import is_of_value_head
from seif_nemo.parallel.tensor_sums import LANES, row_weights, shard_sums, sums_digest, tensor_sums
from seif_nemo.parallel.topology import Topology
from seif_nemo.weights.hf import Part, own_parts
from seif_nemo.weights.hf_files import HfFiles
from seif_nemo.weights.hf_mapping import Place, Replicated, expected_shapes, is_ignored
from seif_nemo.weights.peft import adapter_parts, adapter_shapes

_FIRST, _ALL = 0, 1  # copies


class ReplicasDifferError(RuntimeError):
    """Ranks that must hold the same weights do not. The message names the tensor."""


Views = Iterable[tuple[Tensor, Tensor]]  # a parameter of the model, and the tensor that holds its values


class WeightSums(Protocol):
    """What the role bank needs for its digests."""

    def of(self, views: Views) -> Tensor:
        """Sums of the weights that this rank holds, int64: [2, L, T] in the one implementation."""
        ...

    def odd_one(self, expected: Tensor, found: Tensor) -> str:
        """The first tensor whose sums are not the expected ones."""
        ...

    def join(self, sums: Tensor) -> str:
        """The digest of all ranks' weights from each one's sums, the same on every rank. Collective."""
        ...


@dataclass(frozen=True, slots=True)
class _Shard:
    """How one parameter of this rank is summed."""

    owners_R: Tensor  # the tensor that each row is of
    weights_LR: Tensor
    first_column: int
    counts: bool  # whether it is the first copy


class RoleSums:
    """Sums and digest of weights of one model, whose chunks on this rank are `modules`: of all, or of some tensors.

    A role that is an adapter on a frozen base has the adapter's digest; tensors that are not summed do not enter it.
    """

    def __init__(
        self, modules: Sequence[GPTModel], arch: Architecture, topology: Topology, lora: LoraConfig | None = None
    ) -> None:
        """`lora` is that of the model's adapters, if it has them.

        Collective. Checks that each element of each tensor has one first copy.
        """
        self._topology = topology
        self._dtype = modules[0].config.params_dtype
        head = _value_head_shapes(arch)
        shapes = expected_shapes(arch) | head
        if lora is not None:
            shapes |= adapter_shapes(arch, lora)
        self._names = list(shapes)
        self._shards: dict[int, _Shard] = {}
        held_2T = torch.zeros(2, len(shapes), dtype=torch.int64)
        for parameter, place, own, counts in _placed(modules, arch, topology, lora):
            shard = self._shards[id(parameter)] = _shard(place, own, self._names, counts)
            elements_R = (place.rows >= 0) * (parameter.numel() // parameter.shape[0])
            _add(held_2T[:, None], shard, elements_R[None])
        whole_T = torch.tensor([torch.Size(shape).numel() for shape in shapes.values()])
        held_2T = _summed(held_2T, topology)
        first_T, self._copies_T = held_2T[_FIRST], held_2T[_ALL] // whole_T
        of_head_T = torch.tensor([name in head for name in shapes])
        assert torch.equal(first_T, torch.where(of_head_T & (first_T == 0), 0, whole_T))
        assert torch.equal(self._copies_T * whole_T, held_2T[_ALL])

    def of(self, views: Views) -> Tensor:
        sums_2LT = torch.zeros(2, LANES, len(self._names), dtype=torch.int64)
        for parameter, view in views:
            shard = self._shards[id(parameter)]
            weights = shard.weights_LR.to(view.device)
            _add(sums_2LT, shard, shard_sums(view, weights, shard.first_column).cpu())
        return sums_2LT

    def odd_one(self, expected: Tensor, found: Tensor) -> str:
        return self._names[int((expected != found).any(0).any(0).nonzero()[0])]

    def join(self, sums: Tensor) -> str:
        """Raises ReplicasDifferError on every rank."""
        joined_2LT = _summed(sums, self._topology)
        differ_T = (joined_2LT[_FIRST] * self._copies_T != joined_2LT[_ALL]).any(0)
        if differ_T.any():
            name = self._names[int(differ_T.nonzero()[0])]
            raise ReplicasDifferError(f"the ranks that hold copies of {name} hold different weights")
        return sums_digest(self._names, joined_2LT[_FIRST].T, self._dtype)


class FrozenBase:
    """The base model that adapters go with: which one it is, and that it still is what was loaded.

    `digest` is that of its weights, the same at every layout and for the Hugging Face directory that it came from.
    """

    def __init__(self, modules: Sequence[GPTModel], sums: RoleSums) -> None:
        """To be made when the base model was loaded. Collective."""
        parameters = [parameter for module in modules for parameter in module.parameters()]
        self._views = [(parameter, parameter.detach()) for parameter in parameters if not parameter.requires_grad]
        self._sums = sums
        self._loaded = sums.of(self._views)
        self.digest = sums.join(self._loaded)

    def fault(self) -> str | None:
        """What is wrong with this rank's part of it, if anything is. It takes one pass over the weights."""
        now = self._sums.of(self._views)
        if torch.equal(now, self._loaded):
            return None
        return f"{self._sums.odd_one(self._loaded, now)} of the frozen base model is not what was loaded"


def digest_of_model(modules: Sequence[GPTModel], arch: Architecture, topology: Topology) -> str:
    """The digest of the weights that a model holds. Collective."""
    sums = RoleSums(modules, arch, topology)
    return sums.join(sums.of((parameter, parameter) for module in modules for parameter in module.parameters()))


def digest_of_hf(hf_dir: str | Path, dtype: torch.dtype) -> str:
    """The digest that a model in `dtype` has when it was loaded from this directory. Reads tensor by tensor."""
    arch = read_architecture(hf_dir)
    with HfFiles(hf_dir) as files:
        names = [name for name in files.file_of if not is_ignored(name)]
        files.check(expected_shapes(arch), ignored=set(files.file_of) - set(names))
        sums = [tensor_sums(name, files.read(name, slice(None)).to(dtype)) for name in names]
    return sums_digest(names, torch.stack(sums), dtype)


def _placed(
    modules: Sequence[GPTModel], arch: Architecture, topology: Topology, lora: LoraConfig | None
) -> Iterator[tuple[Tensor, Place, dict[str, tuple[int, ...]], bool]]:
    """Each parameter of this rank, its place, the shapes of the tensors it is a part of, whether it is a first copy."""
    stage_rank = topology.rank % topology.stage_size
    for chunk, module in enumerate(modules):
        for part, parameter in own_parts(module, chunk, arch, topology):
            tensor_rank = topology.tensor_rank if part.expert is None else topology.expert_tensor_rank
            place = part.piece.place(tensor_rank, part.ranks)
            counts = part.first <= stage_rank < part.first + (1 if isinstance(part.piece, Replicated) else part.ranks)
            yield parameter, place, part.piece.shapes(), counts and not _is_second_copy(part, arch)
        for name, parameter in module.named_parameters():
            if is_of_value_head(name):
                yield parameter, Place(torch.arange(len(parameter))), {name: tuple(parameter.shape)}, stage_rank == 0
    if lora is not None:
        for part in adapter_parts(modules, arch, lora):
            rank, ranks = (topology.tensor_rank, topology.tensor) if part.divided else (0, 1)
            yield part.shard, part.piece.place(rank, ranks), part.piece.shapes(), stage_rank < ranks


def _is_second_copy(part: Part, arch: Architecture) -> bool:
    return arch.tied_embeddings and part.name == "output_layer.weight"


def _value_head_shapes(arch: Architecture) -> dict[str, tuple[int, ...]]:
    return {"value_head.weight": (arch.hidden_size,), "value_head.bias": (1,)}


def _shard(place: Place, own: dict[str, tuple[int, ...]], names: Sequence[str], counts: bool) -> _Shard:
    """`own`: names and shapes of the tensors, one below the other, in which the place's rows are numbered."""
    order = {name: number for number, name in enumerate(names)}
    owners_R = torch.zeros_like(place.rows)
    weights_LR = torch.zeros(LANES, len(place.rows), dtype=torch.int64)
    start = 0
    for name, shape in own.items():
        numbers = place.rows - start
        inside = (numbers >= 0) & (numbers < shape[0])
        owners_R[inside] = order[name]
        weights_LR[:, inside] = row_weights(name, numbers[inside])
        start += shape[0]
    return _Shard(owners_R, weights_LR, place.first_column, counts)


def _add(sums_2LT: Tensor, shard: _Shard, rows_LR: Tensor) -> None:
    sums_2LT[_ALL].index_add_(1, shard.owners_R, rows_LR)
    if shard.counts:
        sums_2LT[_FIRST].index_add_(1, shard.owners_R, rows_LR)


def _summed(values: Tensor, topology: Topology) -> Tensor:
    """The sum over all ranks, mod 2^64, on the CPU. Collective."""
    total = values.to(topology.device, copy=True)
    dist.all_reduce(total, group=topology.world_group)
    return total.cpu()
