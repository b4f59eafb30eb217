"""One piece of work at a time in a thread of every rank, while the ranks do something else.

The threads of all ranks talk through a group of their own: no group is ever used by two threads. Its backend is gloo
on every device.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

import torch.distributed as dist

from seif_nemo.checkpointing.manifest import CheckpointError, WriteError
from seif_nemo.parallel.collectives import max_over_ranks
from seif_nemo.parallel.topology import Topology

T = TypeVar("T")
_DONE, _RUNNING, _FAILED = 0.0, 1.0, 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Finished(Generic[T]):
    result: T
    seconds: float  # from start to end, on this rank


class _Work(Generic[T]):
    def __init__(self, name: str, function: Callable[[], T]) -> None:
        self.name = name
        self.started = time.monotonic()
        self.ended = self.started
        self.result: T | None = None
        self.error: Exception | None = None
        self._function = function
        self.thread = threading.Thread(target=self._run, name=f"writes {name}", daemon=True)

    def _run(self) -> None:
        try:
            self.result = self._function()
        except Exception as error:
            self.error = error
        self.ended = time.monotonic()


class Background(Generic[T]):
    """Runs functions that return T. `group` is for them alone. The constructor is collective."""

    def __init__(self, topology: Topology, *, timeout_s: float) -> None:
        self._topology = topology
        self._timeout_s = timeout_s
        group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))
        assert isinstance(group, dist.ProcessGroup)
        self.group = group
        self._work: _Work[T] | None = None
        self.is_given_up = threading.Event()  # set: what is still running must leave no trace

    @property
    def is_busy(self) -> bool:
        """Whether something was started of which `take` has not told the end."""
        return self._work is not None

    def start(self, name: str, function: Callable[[], T]) -> None:
        """Begin. Every rank calls it at the same place; `name` is for messages."""
        assert self._work is None, f"{self._work and self._work.name} is still being written"
        self._work = _Work(name, function)
        self._work.thread.start()

    def take(self, *, wait: bool) -> Finished[T] | None:
        """The result once all ranks have theirs. Collective, on the world's group.

        None while one has not and `wait` is false. Raises on every rank, if the function raised on one or has taken
        longer than the time limit: its own error where that is of no checkpoint, else WriteError.
        """
        work = self._work
        assert work is not None, "nothing was started"
        left = work.started + self._timeout_s - time.monotonic()
        if wait:
            work.thread.join(max(0.0, left))
        late = work.thread.is_alive() and work.started + self._timeout_s <= time.monotonic()
        if late:
            self.is_given_up.set()
            work.error = WriteError(
                f"{work.name}: not written within checkpoint.write_timeout_s={self._timeout_s:g}: the file system "
                "hangs or is slow"
            )
        own = _FAILED if work.error is not None else _RUNNING if work.thread.is_alive() else _DONE
        worst = max_over_ranks([own], self._topology)[0]
        if worst == _FAILED:
            self._work = None
            self._raise_everywhere(work.error)
        if worst == _RUNNING:
            return self.take(wait=True) if wait else None
        self._work = None
        assert work.result is not None
        return Finished(work.result, work.ended - work.started)

    def abandon(self) -> None:
        """Let what is running end, within the time limit; for a run that ends by an error. Not collective."""
        if self._work is not None:
            self._work.thread.join(max(0.0, self._work.started + self._timeout_s - time.monotonic()))

    def to_main(self, mine: Any) -> list[Any]:
        """Every rank's object, on the main rank; nothing on the others. For the functions that run here."""
        gathered: list[Any] = [None] * self._topology.world_size if self._topology.is_main else []
        dist.gather_object(mine, gathered if self._topology.is_main else None, dst=0, group=self.group)
        return gathered

    def from_main(self, mine: Any) -> Any:
        """The main rank's object, on every rank. For the functions that run here."""
        objects = [mine]
        dist.broadcast_object_list(objects, src=0, group=self.group)
        return objects[0]

    def _raise_everywhere(self, error: Exception | None) -> None:
        messages: list[str | None] = [None] * self._topology.world_size
        dist.all_gather_object(messages, None if error is None else str(error), group=self._topology.world_group)
        if error is not None and not isinstance(error, CheckpointError | OSError):
            raise error
        raise WriteError(next(message for message in messages if message is not None)) from error
