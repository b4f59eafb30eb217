"""Small agreements among all ranks of the world."""

from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store  # pyright: ignore[reportPrivateUsage] no public way

from seif_nemo.parallel.topology import Topology

_REFUSED = "the main rank has refused"


def any_rank(flag: bool, topology: Topology) -> bool:
    """True on every rank if `flag` is true on at least one."""
    value = torch.tensor([flag], dtype=torch.int32, device=topology.device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX, group=topology.world_group)
    return bool(value.item())


def max_over_ranks(values: Sequence[float], topology: Topology) -> list[float]:
    """Entry by entry the largest of any rank, on every rank; all give as many."""
    tensor = torch.tensor(values, dtype=torch.float64, device=topology.device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=topology.world_group)
    return tensor.tolist()


def broadcast_int(value: int, topology: Topology) -> int:
    """The main rank's `value` on every rank."""
    tensor = torch.tensor([value], dtype=torch.int64, device=topology.device)
    dist.broadcast(tensor, src=0, group=topology.world_group)
    return int(tensor.item())


def broadcast_float(value: float, topology: Topology) -> float:
    """The main rank's `value` on every rank, to the bit."""
    tensor = torch.tensor([value], dtype=torch.float64, device=topology.device)
    dist.broadcast(tensor, src=0, group=topology.world_group)
    return float(tensor.item())


def speaks_of_refusal(topology: Topology, *, wait_s: float) -> bool:
    """Whether this rank is to name the bad input that it met, so that a fault of all ranks is named once.

    The main rank speaks at once; another only if the main rank has not within `wait_s` seconds, as when a file is
    missing on one node. Not collective: the ranks without the fault are elsewhere.
    """
    store = _get_default_store()
    if topology.is_main:
        store.set(_REFUSED, "")
        return True
    try:
        store.wait([_REFUSED], timedelta(seconds=wait_s))
    except dist.DistStoreError:  # nothing within `wait_s`
        return True
    except RuntimeError:  # the main rank, which serves the store, has ended: it has named its fault
        return False
    return False


def barrier(topology: Topology) -> None:
    """Wait until every rank is here (an all-reduce, so that the collective time-out applies on every backend)."""
    any_rank(False, topology)
