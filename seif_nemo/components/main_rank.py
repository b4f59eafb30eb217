"""Work that only the main rank can do, such as talking to a server, with its result on every rank."""

import threading
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist

from seif_nemo.parallel.collectives import broadcast_int
from seif_nemo.parallel.topology import Topology

T = TypeVar("T")

_MAX_HEARTBEAT_S = 5.0
_HEARTBEATS_PER_TIMEOUT = 4  # some may be late
_WORKING, _DONE = 0, 1


class MainRankError(RuntimeError):
    """The main rank's work raised. It raised the error itself there."""


def on_main_rank(work: Callable[[], T], topology: Topology, *, heartbeat_s: float | None = None) -> T:
    """What `work()` gives on the main rank, on every rank. Collective.

    The others hear of the main rank every `heartbeat_s` seconds, so that long work runs into no collective's time-out;
    None: every 5 s, or more often where collectives time out within 20 s.
    If `work` raises, the main rank raises that and the others MainRankError. The result must pickle.
    """
    if dist.get_world_size(topology.world_group) == 1:
        return work()
    if not topology.is_main:
        while broadcast_int(_WORKING, topology) == _WORKING:
            pass
        outcome = _broadcast(None, topology)
        if outcome[1] is not None:
            raise MainRankError(outcome[1])
        return outcome[0]
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    if heartbeat_s is None:
        heartbeat_s = min(_MAX_HEARTBEAT_S, topology.collective_timeout_s / _HEARTBEATS_PER_TIMEOUT)
    thread = threading.Thread(target=run, name="main-rank work", daemon=True)
    thread.start()
    state = _WORKING
    while state == _WORKING:
        thread.join(heartbeat_s)
        state = _WORKING if thread.is_alive() else _DONE
        broadcast_int(state, topology)
    _broadcast((None, f"{type(errors[0]).__name__}: {errors[0]}") if errors else (results[0], None), topology)
    if errors:
        raise errors[0]
    return results[0]


def _broadcast(outcome: tuple[T | None, str | None] | None, topology: Topology) -> tuple[T, str | None]:
    box: list[object] = [outcome]
    dist.broadcast_object_list(box, src=0, group=topology.world_group, device=torch.device(topology.device))
    return box[0]  # pyright: ignore[reportReturnType] what the main rank put in
