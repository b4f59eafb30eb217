"""The ranks of a run: who computes which part of the model, and through which groups they talk.

Ranks are laid out as megatron-core does by default: tensor-parallel neighbours are adjacent, then context, then data,
then pipeline.
"""

import itertools
import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from torch.distributed import (
    HashStore,  # pyright: ignore[reportPrivateImportUsage] public, but not in __all__
    PrefixStore,  # pyright: ignore[reportPrivateImportUsage]
    ProcessGroup,
    Store,  # pyright: ignore[reportPrivateImportUsage]
)
from torch.distributed.rendezvous import rendezvous

from seif_nemo.config.parallel import Backend, ParallelConfig
from seif_nemo.parallel.cpu_backend import apply_checkpoint_fixes, apply_cpu_backend, apply_torch_adam_fixes

_ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_builds = itertools.count()  # a store may outlive a process group: each build gets names of its own in it


@dataclass(frozen=True, slots=True)
class Topology:
    """This rank's place. Sizes: `tensor * context * pipeline * data == world_size`.

    Ranks that hold the same weights are replicas of one another: `context * data` of them.
    For experts the same ranks are divided a second time: `expert_tensor` neighbours hold one expert's shards, `expert`
    such blocks, one after the other, hold all experts, and what is left of the stage's ranks are copies of that.
    """

    world_size: int
    rank: int
    tensor: int
    pipeline: int
    data: int
    context: int  # ranks that share the positions of each sequence
    sequence: bool  # sequence parallelism inside the tensor-parallel group
    tensor_rank: int
    pipeline_rank: int
    data_rank: int
    context_rank: int
    device: torch.device
    tensor_group: ProcessGroup
    pipeline_group: ProcessGroup
    data_group: ProcessGroup
    context_group: ProcessGroup
    replica_group: ProcessGroup  # all ranks that hold the weights of this one
    world_group: ProcessGroup
    last_stage_rank: int  # global rank of the last pipeline stage in this rank's pipeline group
    collective_timeout_s: float  # a collective that waits longer raises
    virtual: int  # model chunks on each pipeline stage
    pipeline_layout: tuple[int, ...] | None  # layers of each chunk, as a token passes them; None: equal
    expert: int
    expert_tensor: int
    expert_rank: int
    expert_tensor_rank: int
    expert_tensor_group: ProcessGroup  # ranks that hold the other shards of the same experts
    expert_block_group: ProcessGroup  # ranks that hold all experts together
    expert_replica_group: ProcessGroup  # all ranks that hold the experts of this one

    @property
    def stage_size(self) -> int:
        """Ranks of one pipeline stage."""
        return self.world_size // self.pipeline

    @property
    def generators(self) -> int:
        """Parts of the world that can run forward passes at a pace of their own: of a dense model, `replicas`.

        Where experts are shared out over several replicas, these make one generator.
        """
        return self.stage_size // max(self.tensor, self.expert_tensor * self.expert)

    @property
    def generator_rank(self) -> int:
        return self.replica_rank * self.generators // self.replicas

    @property
    def is_first_stage(self) -> bool:
        return self.pipeline_rank == 0

    @property
    def is_last_stage(self) -> bool:
        return self.pipeline_rank == self.pipeline - 1

    @property
    def replicas(self) -> int:
        return self.data * self.context

    @property
    def replica_rank(self) -> int:
        """Place in `replica_group`."""
        return self.data_rank * self.context + self.context_rank

    @property
    def is_main(self) -> bool:
        """Whether this is global rank 0, the only one that writes shared files."""
        return self.rank == 0


def build_topology(config: ParallelConfig, *, seed: int, threads: int, rendezvous_timeout_s: float = 600.0) -> Topology:
    """Join the world, divide it into groups and seed megatron-core's random states. Collective over all ranks.

    RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT and LOCAL_RANK are read as torchrun sets them; where none of them is set,
    this process is a world of one. `threads` is torch's CPU threads per rank. A collective that waits longer than
    `parallel.collective_timeout_s` raises. The device is CUDA unless there is none or `parallel.backend=gloo`; on the
    CPU `apply_cpu_backend` is called first.

    Raises ValueError for a world that `tensor * context * pipeline` does not divide, for experts that cannot be shared
    out over it, for a backend that this machine does not have, and for a half-set environment.
    """
    rank, world_size, local_rank = _place_from_environment()
    _check_division(config, world_size)
    device, backend = _device_and_backend(config, local_rank)
    torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        apply_cpu_backend()
    apply_torch_adam_fixes(always=config.optimizer_offload)
    apply_checkpoint_fixes()
    dist.init_process_group(
        backend,
        store=_store(rank, world_size, rendezvous_timeout_s),
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=config.collective_timeout_s),
    )
    topology = divide_world(config, device)
    model_parallel_cuda_manual_seed(seed)
    return topology


def divide_world(config: ParallelConfig, device: torch.device) -> Topology:
    """Divide the ranks of the world into megatron-core's groups. Collective; megatron-core must know no groups yet.

    Raises ValueError as `build_topology` does.
    """
    world_size = dist.get_world_size()
    _check_division(config, world_size)
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=config.tensor,
        pipeline_model_parallel_size=config.pipeline,
        context_parallel_size=config.context,
        virtual_pipeline_model_parallel_size=config.virtual_pipeline if config.virtual_pipeline > 1 else None,
        distributed_timeout_minutes=config.collective_timeout_s / 60,  # pyright: ignore[reportArgumentType] goes to timedelta
        create_gloo_process_groups=device.type == "cuda",
        expert_model_parallel_size=config.expert,
        expert_tensor_parallel_size=config.expert_tensor,
    )
    return Topology(
        world_size=world_size,
        rank=dist.get_rank(),
        tensor=config.tensor,
        pipeline=config.pipeline,
        data=world_size // (config.tensor * config.context * config.pipeline),
        context=config.context,
        sequence=config.sequence,
        tensor_rank=parallel_state.get_tensor_model_parallel_rank(),
        pipeline_rank=parallel_state.get_pipeline_model_parallel_rank(),
        data_rank=parallel_state.get_data_parallel_rank(),
        context_rank=parallel_state.get_context_parallel_rank(),
        device=device,
        tensor_group=_group(parallel_state.get_tensor_model_parallel_group()),
        pipeline_group=_group(parallel_state.get_pipeline_model_parallel_group()),
        data_group=_group(parallel_state.get_data_parallel_group()),
        context_group=_group(parallel_state.get_context_parallel_group()),
        replica_group=_group(parallel_state.get_data_parallel_group(with_context_parallel=True)),
        world_group=_group(dist.group.WORLD),
        last_stage_rank=parallel_state.get_pipeline_model_parallel_last_rank(),
        collective_timeout_s=config.collective_timeout_s,
        virtual=config.virtual_pipeline,
        pipeline_layout=None if config.pipeline_layout is None else tuple(config.pipeline_layout),
        expert=config.expert,
        expert_tensor=config.tensor if config.expert_tensor is None else config.expert_tensor,
        expert_rank=parallel_state.get_expert_model_parallel_rank(),
        expert_tensor_rank=parallel_state.get_expert_tensor_parallel_rank() or 0,
        expert_tensor_group=_group(parallel_state.get_expert_tensor_parallel_group()),
        expert_block_group=_group(parallel_state.get_expert_tensor_and_model_parallel_group()),
        expert_replica_group=_group(parallel_state.get_expert_data_parallel_group()),
    )


def shutdown(topology: Topology) -> None:
    """Leave the world: destroy megatron-core's groups and torch's. Not collective."""
    assert dist.get_rank() == topology.rank
    parallel_state.destroy_model_parallel()
    dist.destroy_process_group()


def _group(group: object) -> ProcessGroup:
    assert isinstance(group, ProcessGroup)
    return group


def _place_from_environment() -> tuple[int, int, int]:
    present = [name for name in _ENVIRONMENT if name in os.environ]
    if not present:
        return 0, 1, 0
    missing = [name for name in _ENVIRONMENT if name not in os.environ]
    if missing:
        raise ValueError(
            f"the environment has {', '.join(present)} but not {', '.join(missing)}: "
            "start the ranks with torchrun, or unset them all for a single process"
        )
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if not 0 <= rank < world_size:
        raise ValueError(f"RANK={rank} must be from 0 to {world_size - 1} for WORLD_SIZE={world_size}")
    return rank, world_size, int(os.environ.get("LOCAL_RANK", rank))


def _check_division(config: ParallelConfig, world_size: int) -> None:
    ranks_per_model = config.tensor * config.context * config.pipeline
    if world_size % ranks_per_model == 0:
        check_expert_division(config, world_size // config.pipeline)
        return
    divisors = [size for size in range(1, world_size + 1) if world_size % size == 0]
    nearest = sorted(divisors, key=lambda size: (abs(size - ranks_per_model), size))[:2]
    below = world_size // ranks_per_model * ranks_per_model
    worlds = " or ".join(str(size) for size in (below, below + ranks_per_model) if size)
    raise ValueError(
        f"parallel.tensor={config.tensor} times parallel.context={config.context} times "
        f"parallel.pipeline={config.pipeline} is {ranks_per_model}, which does not divide the {world_size} ranks of "
        f"this run: choose a product of {' or '.join(map(str, sorted(nearest)))}, "
        f"or start {worlds} ranks"
    )


def check_expert_division(config: ParallelConfig, stage_size: int) -> None:
    """Raise ValueError, with the nearest choices, where experts cannot be shared out as the configuration says.

    `stage_size`: ranks of one pipeline stage, which tensor parallelism divides.
    """
    inner = config.tensor if config.expert_tensor is None else config.expert_tensor
    if stage_size % inner:
        fits = [size for size in range(1, stage_size + 1) if stage_size % size == 0]
        raise ValueError(
            f"parallel.expert_tensor={inner} does not divide the {stage_size} ranks of a pipeline stage: choose "
            f"{_nearest(fits, inner)}"
        )
    fits = [
        size
        for size in range(1, stage_size // inner + 1)
        if stage_size // inner % size == 0
        and (size * inner % config.tensor == 0 or config.tensor % (size * inner) == 0)
    ]
    if config.expert not in fits:
        raise ValueError(
            f"parallel.expert={config.expert} times {inner} ranks per expert must divide the {stage_size} ranks of a "
            f"pipeline stage, and be a multiple or a divisor of parallel.tensor={config.tensor}: choose "
            f"{_nearest(fits, config.expert)}"
        )


def _nearest(choices: list[int], wanted: int) -> str:
    best = sorted(sorted(choices, key=lambda choice: (abs(choice - wanted), choice))[:2])
    return " or ".join(map(str, best))


def _device_and_backend(config: ParallelConfig, local_rank: int) -> tuple[torch.device, str]:
    has_cuda = torch.cuda.is_available()
    if config.backend is Backend.nccl and not has_cuda:
        raise ValueError("parallel.backend=nccl needs a CUDA device and this machine has none: choose auto or gloo")
    if config.backend is Backend.gloo or not has_cuda:
        return torch.device("cpu"), "gloo"
    if local_rank >= torch.cuda.device_count():  # never ran on a GPU
        raise ValueError(
            f"LOCAL_RANK={local_rank} but this machine has {torch.cuda.device_count()} GPUs: start one rank per GPU"
        )
    return torch.device("cuda", local_rank), "nccl"  # never ran on a GPU


def _store(rank: int, world_size: int, timeout_s: float) -> Store:
    if "MASTER_ADDR" not in os.environ:
        store: Store = HashStore()
    else:
        store, _, _ = next(iter(rendezvous("env://", rank, world_size, timeout=timedelta(seconds=timeout_s))))
    return PrefixStore(f"seif_nemo/{next(_builds)}", store)
