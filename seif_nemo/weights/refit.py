"""The trained model's weights into a model of another layout on the same ranks: for generation.

    refit = Refit(trainable.modules, training_topology, generation_modules, generation_topology, arch, …)
    refit.run(bank.digest("follower"))

The plan is megatron-core's (`megatron.core.resharding`): which rank sends which slice of which parameter to whom. It
matches parameters by name and cuts them along one dimension, and knows neither several chunks of a stage, nor experts
one by one, nor tied copies of the embedding, nor that a feed-forward layer's first matrix is two (0.16.1: gate and up
would be mixed up without a word). So it is given parameters under their Hugging Face names with the facts of
`hf_mapping.py`, and what arrives is checked by digest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.models.gpt import GPTModel
from megatron.core.resharding import build_centralized_reshard_plan, execute_reshard_plan
from megatron.core.resharding.copy_services.base import CopyService
from megatron.core.resharding.utils import ReshardPlan, TransferOp
from torch import Tensor

from seif_nemo.config.roles import LoraConfig
from seif_nemo.models.architecture import Architecture
from seif_nemo.models.builder import padded_vocab_size
from seif_nemo.parallel.topology import Topology
from seif_nemo.weights.hf import own_parts
from seif_nemo.weights.hf_mapping import Columns, Piece, Replicated, Rows
from seif_nemo.weights.peft import adapter_parts
from seif_nemo.weights.role_digest import RoleSums


class RefitError(RuntimeError):
    """What arrived is not what was sent."""


class Refit:
    """Moves weights between two models of one architecture on the same ranks, over the world's group.

    Of models with adapters (`lora`) it moves these alone: both have the frozen base model already. No rank has more
    than `bucket_bytes` under way, unless a single slice is larger. Raises ValueError for layouts that pad the
    vocabulary differently.
    """

    def __init__(
        self,
        source: Sequence[GPTModel],
        source_topology: Topology,
        target: Sequence[GPTModel],
        target_topology: Topology,
        arch: Architecture,
        *,
        bucket_bytes: int,
        lora: LoraConfig | None = None,
    ) -> None:
        """Makes the plan, which is good for every later call. Collective."""
        sizes = {padded_vocab_size(arch, topology.tensor) for topology in (source_topology, target_topology)}
        if len(sizes) > 1:
            raise ValueError(
                f"generation.tensor={target_topology.tensor} pads the vocabulary to another size than "
                f"parallel.tensor={source_topology.tensor}: choose a divisor of 8, or null"
            )
        self._target = list(target)
        self._sums = RoleSums(target, arch, target_topology, lora)
        self._moves: list[_Move] = []
        for of_experts in (False, True) if arch.experts is not None and lora is None else (False,):
            here = _Named(source, arch, source_topology, lora, of_experts=of_experts)
            there = _Named(target, arch, target_topology, lora, of_experts=of_experts)
            plan = build_centralized_reshard_plan(here, there)
            buckets = _in_buckets(plan, here, there, bucket_bytes)
            self._moves.append(_Move(here, there, buckets))
        self._copies = _Copies(source_topology)

    @property
    def num_buckets(self) -> int:
        return sum(len(move.buckets) for move in self._moves)

    def run(self, digest: str) -> None:
        """Copy the source's weights, whose digest this is, into the target. Collective.

        Raises RefitError on every rank if the target's weights then have another digest.
        """
        for move in self._moves:
            for bucket in move.buckets:
                execute_reshard_plan(bucket, move.source, move.target, self._copies)
        arrived = self.digest()
        if arrived != digest:
            raise RefitError(f"weights {digest} were sent to the generation layout, {arrived} arrived")

    def digest(self) -> str:
        """Of the target's weights that move. Collective."""
        parameters = (parameter for module in self._target for parameter in module.parameters())
        views = ((parameter, parameter.detach()) for parameter in parameters if parameter.requires_grad)
        return self._sums.join(self._sums.of(views))


@dataclass(frozen=True, slots=True, eq=False)
class _Parameter:
    """A parameter as megatron-core's planner asks for it."""

    data: Tensor
    tensor_model_parallel: bool
    partition_dim: int
    partition_stride: int  # matrices that lie one below the other, each divided
    allreduce: bool  # False: an expert's

    @property
    def shape(self) -> torch.Size:
        return self.data.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.data.dtype

    def element_size(self) -> int:
        return self.data.element_size()


class _Named(torch.nn.Module):
    """All chunks of a stage as megatron-core's planner sees a model: parameters and groups, of experts or the others.

    With `lora` the parameters are those of the adapters.
    """

    def __init__(
        self,
        modules: Sequence[GPTModel],
        arch: Architecture,
        topology: Topology,
        lora: LoraConfig | None,
        *,
        of_experts: bool,
    ) -> None:
        super().__init__()
        replicas = topology.expert_replica_group if of_experts else topology.replica_group
        self.pg_collection = SimpleNamespace(
            tp=topology.tensor_group,
            expt_tp=topology.expert_tensor_group,
            ep=topology.expert_block_group,
            dp=replicas,
            pp=topology.pipeline_group,
        )
        self._named: dict[str, _Parameter] = {}
        if lora is not None:
            for part in adapter_parts(modules, arch, lora):
                name = next(iter(part.piece.shapes()))
                self._named[name] = _described(part.piece, part.shard.data, divided=part.divided)
            return
        for chunk, module in enumerate(modules):
            for part, parameter in own_parts(module, chunk, arch, topology):
                if (part.expert is not None) == of_experts:
                    name = next(iter(part.piece.shapes()))
                    assert name not in self._named
                    divided, of_all = not isinstance(part.piece, Replicated), part.expert is None
                    self._named[name] = _described(part.piece, parameter.data, divided=divided, of_all=of_all)

    def named_parameters(self, *_: object, **__: object) -> Iterator[tuple[str, Any]]:
        return iter(self._named.items())


@dataclass(frozen=True, slots=True, eq=False)
class _Move:
    source: _Named
    target: _Named
    buckets: list[ReshardPlan]


def _described(piece: Piece, data: Tensor, *, divided: bool, of_all: bool = True) -> _Parameter:
    return _Parameter(
        data,
        tensor_model_parallel=divided,
        partition_dim=1 if isinstance(piece, Columns) else 0,
        partition_stride=len(piece.names) if divided and isinstance(piece, Rows) else 1,
        allreduce=of_all,
    )


def _in_buckets(plan: ReshardPlan, source: _Named, target: _Named, bucket_bytes: int) -> list[ReshardPlan]:
    """The plan in parts, the same on every rank, whose slices fit into the limit on each. Collective."""
    sent, received = (
        {_number(op): _num_bytes(model, op) for op in ops}
        for model, ops in ((source, plan.send_ops), (target, plan.recv_ops))
    )
    loads: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(loads, (sent, received))
    numbers = sorted({number for pair in loads for load in pair for number in load})
    bucket_of: dict[int, int] = {}
    held = [0] * len(loads)
    bucket = 0
    for number in numbers:
        added = [sum(load.get(number, 0) for load in pair) for pair in loads]
        if any(held) and any(sum(both) > bucket_bytes for both in zip(held, added, strict=True)):
            bucket, held = bucket + 1, [0] * len(loads)
        held = [sum(both) for both in zip(held, added, strict=True)]
        bucket_of[number] = bucket
    return [
        ReshardPlan(
            send_ops=[op for op in plan.send_ops if bucket_of[_number(op)] == place],
            recv_ops=[op for op in plan.recv_ops if bucket_of[_number(op)] == place],
        )
        for place in range(bucket + 1)
    ]


def _number(op: TransferOp) -> int:
    """The slice's number, which sender and receiver share."""
    assert op.task_id is not None
    return op.task_id


def _num_bytes(model: _Named, op: TransferOp) -> int:
    return model._named[op.param_name].data[op.my_slice].nbytes


class _Copies(CopyService):
    """One bucket's slices, sent over the world's group: its backend is the one that `parallel.backend` says.

    (megatron-core's own service for gloo makes a group and CUDA streams of its own, the one for NCCL names CUDA.)
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._sends: list[tuple[int, Tensor, int]] = []
        self._receives: list[tuple[int, Tensor, int]] = []

    def submit_send_with_id(self, task_id: int, src_tensor: Tensor, dest_rank: int) -> None:
        self._sends.append((task_id, src_tensor, dest_rank))

    def submit_recv_with_id(self, task_id: int, dest_tensor: Tensor, src_rank: int) -> None:
        self._receives.append((task_id, dest_tensor, src_rank))

    def submit_send(self, src_tensor: Tensor, dest_rank: int) -> None:
        raise NotImplementedError  # megatron-core takes the one with an id where there is one

    def submit_recv(self, dest_tensor: Tensor, src_rank: int) -> None:
        raise NotImplementedError

    def run(self) -> None:
        rank, group = self._topology.rank, self._topology.world_group
        own = {task: tensor for task, tensor, peer in self._sends if peer == rank}
        operations: list[dist.P2POp] = []
        for task, tensor, peer in sorted(self._sends, key=lambda send: send[0]):
            if peer != rank:
                operations.append(dist.P2POp(dist.isend, tensor, peer, group, tag=task))
        for task, tensor, peer in sorted(self._receives, key=lambda receive: receive[0]):
            if peer == rank:
                tensor.copy_(own.pop(task))
            else:
                operations.append(dist.P2POp(dist.irecv, tensor, peer, group, tag=task))
        assert not own, f"slices {sorted(own)} were sent to this rank and nobody waits for them"
        self._sends, self._receives = [], []
        if operations:
            for work in dist.batch_isend_irecv(operations):
                work.wait()
