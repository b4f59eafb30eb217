"""Small agreements among all ranks of the world."""

import torch
import torch.distributed as dist

from seif_nemo.parallel.topology import Topology


def any_rank(flag: bool, topology: Topology) -> bool:
    """True on every rank if `flag` is true on at least one."""
    value = torch.tensor([flag], dtype=torch.int32, device=topology.device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX, group=topology.world_group)
    return bool(value.item())


def broadcast_int(value: int, topology: Topology) -> int:
    """The main rank's `value` on every rank."""
    tensor = torch.tensor([value], dtype=torch.int64, device=topology.device)
    dist.broadcast(tensor, src=0, group=topology.world_group)
    return int(tensor.item())


def barrier(topology: Topology) -> None:
    """Wait until every rank is here (an all-reduce, so that the collective time-out applies on every backend)."""
    any_rank(False, topology)
