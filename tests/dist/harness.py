"""Run a function on several real processes that form one torch.distributed world.

A fork server imports torch and megatron-core once per test session; every rank is forked from it, so a world starts in
well under a second. The store lives in the test process and the ranks connect to it, as they do under torchrun.
"""

import contextlib
import faulthandler
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage] public, but not in __all__

_THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
_PRELOAD = ["tests.dist.preload"]


class RankError(RuntimeError):
    """A rank raised. The message holds the rank and its traceback."""


def run_ranks(world_size: int, fn: Callable[..., Any], *args: Any, timeout_s: float = 120.0) -> list[Any]:
    """Call `fn(*args)` on `world_size` ranks and return what each returned, in the order of ranks.

    `fn` must be a function at the top of an importable module and its arguments and result must pickle. It finds RANK,
    LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT in the environment; it calls `build_topology` itself, and may do
    so several times with `shutdown` in between. Raises `RankError` with the traceback of the first rank that raised or
    died, and `TimeoutError` after `timeout_s` seconds (every rank then prints its stacks). No rank outlives the call.
    """
    context = process_context()
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=timeout_s))
    ranks: list[tuple[Any, Connection]] = []
    try:
        for rank in range(world_size):
            receiver, sender = context.Pipe(duplex=False)
            env = rank_environment(rank, world_size, store.port)
            process = context.Process(target=_rank_main, args=(env, timeout_s, sender, fn, args), daemon=True)
            process.start()
            sender.close()
            ranks.append((process, receiver))
        return _collect(ranks, timeout_s)
    finally:
        for process, receiver in ranks:
            if process.is_alive():
                process.kill()
            process.join()
            receiver.close()


def _collect(ranks: list[tuple[Any, Connection]], timeout_s: float) -> list[Any]:
    results: dict[int, Any] = {}
    deadline = time.monotonic() + timeout_s
    pending = {receiver: rank for rank, (_, receiver) in enumerate(ranks)}
    while pending:
        ready = multiprocessing.connection.wait(list(pending), timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError(f"ranks {sorted(pending.values())} of {len(ranks)} did not answer in {timeout_s} s")
        for receiver in ready:
            assert isinstance(receiver, Connection)
            rank = pending.pop(receiver)
            try:
                raised, answer = receiver.recv()
            except EOFError:
                ranks[rank][0].join(timeout=5)
                raise RankError(f"rank {rank} died with exit code {ranks[rank][0].exitcode}") from None
            if raised:
                raise RankError(f"rank {rank} raised:\n{answer}")
            results[rank] = answer
    return [results[rank] for rank in range(len(ranks))]


def _rank_main(env: dict[str, str], timeout_s: float, sender: Connection, fn: Callable[..., Any], args: Any) -> None:
    os.environ.update(env)
    assert sys.__stderr__ is not None
    faulthandler.dump_traceback_later(max(1.0, timeout_s - 2.0), file=sys.__stderr__)
    try:
        answer = (False, fn(*args))
    except BaseException:
        answer = (True, traceback.format_exc())
    try:
        sender.send(answer)
    except Exception:
        sender.send((True, f"the result does not pickle:\n{traceback.format_exc()}"))
    sender.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # process groups of a failed rank must not delay the exit


def rank_environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    """What torchrun would set for a rank whose store listens on `port` of this machine."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "GLOO_SOCKET_IFNAME": "lo",
    }


def process_context() -> Any:
    """The multiprocessing context of the fork server that has torch and megatron-core imported."""
    context = multiprocessing.get_context("forkserver")
    with _environment(_THREADS):  # the fork server keeps the environment it starts with, and its children inherit it
        multiprocessing.forkserver.set_forkserver_preload(_PRELOAD)
        multiprocessing.forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
