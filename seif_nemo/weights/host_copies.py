"""Copies of the model's buffers outside the model: in host memory as far as that is allowed, else in files.

    copies.write("follower", buffers)     # from the model, or from another copy
    copies.prefetch("evaluator")          # in the background: from its file, if it is there, and checked
    copies.read("evaluator")              # checked host buffers; waits for what is under way

The sums of a copy are made when it was written and compared before it is read. Both happen in one background thread, in
the order of the calls, so that in the usual case a reader waits for nothing. Which copy has which memory is decided in
the calling thread alone. After warm-up no memory is allocated: copies are of one size, and memory goes from the one
that was not used for longest to the one that needs it.
"""

import math
import mmap
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from seif_nemo.weights.transfer import Buffers, host_like, transfer

_ALIGNMENT = 64  # bytes


class WeightDigestError(RuntimeError):
    """A host copy is not what was stored. The model was not touched."""


@dataclass(frozen=True, slots=True)
class Checks:
    """How copies are compared: `sums` of buffers, and what differs where they are not the expected ones."""

    sums: Callable[[Buffers], Tensor]
    odd_one: Callable[[Tensor, Tensor], str]


@dataclass(frozen=True, slots=True)
class Slots:
    """How many residents' weights and moments may be in host memory at a time (None: all), and where the others go."""

    weights: int | None = None
    moments: int | None = None
    spill_dir: Path | None = None


def slots_within(
    host_memory_gib: float, spill_dir: Path, *, weights_gib: float, moments_gib: float, residents: int, trained: int
) -> Slots:
    """As many copies as fit: weights first, for they change places more often. Sizes are of one copy on one rank.

    Two of each kind must fit, the one that goes and the one that comes. Raises ValueError if they do not.
    """
    least = Slots(min(2, residents), min(2, trained))
    assert least.weights is not None and least.moments is not None
    needed = least.weights * weights_gib + least.moments * moments_gib
    if host_memory_gib < needed:
        raise ValueError(
            f"roles.host_memory_gib={host_memory_gib} has no room for two residents, {needed:.3g} GiB on each rank: "
            f"choose at least {math.ceil(needed * 1000) / 1000}"
        )
    left = host_memory_gib - needed
    more_weights = min(residents - least.weights, int(left / weights_gib))
    more_moments = min(trained - least.moments, int((left - more_weights * weights_gib) / max(moments_gib, 1e-9)))
    return Slots(max(2, least.weights + more_weights), max(2, least.moments + more_moments), spill_dir)


@dataclass(slots=True, eq=False)
class _Copy:
    memory: list[Tensor] | None = None
    file: "_SpillFile | None" = None
    file_is_current: bool = False
    sums: Tensor | None = None  # set by the background thread
    is_checked: bool = False  # since it was written or read last
    jobs: list[Future[None]] = field(default_factory=list[Future[None]])  # not waited for yet


class HostCopies:
    """Named copies of buffers like `like`, of which at most `slots` (None: all) are in host memory at a time.

    The others lie in unnamed files in `spill_dir`, which need no clean-up and whose space is taken when they are made.
    Raises WeightDigestError, from the first call that waits for it, for a copy that is not what was written.
    """

    def __init__(
        self,
        like: Buffers,
        checks: Checks,
        worker: ThreadPoolExecutor,
        *,
        slots: int | None = None,
        spill_dir: Path | None = None,
    ) -> None:
        """`worker` must have one thread."""
        assert slots is None or (slots >= 2 and spill_dir is not None)
        self._like = list(like)
        self._checks = checks
        self._worker = worker
        self._slots = slots
        self._spill_dir = spill_dir
        self._copies: dict[str, _Copy] = {}  # in the order of their last use

    def __contains__(self, name: str) -> bool:
        return name in self._copies

    def write(self, name: str, sources: Buffers) -> None:
        """Make the copy `name` hold what `sources` hold now."""
        transfer(sources, self.to_fill(name))
        self.filled(name)

    def to_fill(self, name: str) -> list[Tensor]:
        """Host buffers of the copy `name`, new or old, that the caller fills; `filled` must follow."""
        copy = self._used(name)
        self._wait(copy)
        if copy.memory is None:
            copy.memory = self._memory(copy)
        copy.file_is_current = copy.is_checked = False
        self._wait_all()  # what was in this memory may be on its way into a file
        return copy.memory

    def filled(self, name: str) -> None:
        copy = self._copies[name]
        memory = copy.memory
        assert memory is not None

        def sum_up() -> None:
            copy.sums = self._checks.sums(memory)

        self._start(copy, sum_up)

    def duplicate(self, source: str, target: str) -> None:
        """Make the copy `target` hold what `source` holds, checked."""
        self.write(target, self.read(source))

    def read(self, name: str) -> list[Tensor]:
        """Host buffers of a copy, checked since the last time. They are the copy's own: not to be written to."""
        self.prefetch(name)
        copy = self._copies[name]
        self._wait(copy)
        copy.is_checked = False
        assert copy.memory is not None
        return copy.memory

    def prefetch(self, name: str) -> None:
        """Begin to bring a copy into memory and to check it."""
        copy = self._used(name)
        if copy.memory is None:
            copy.memory = self._memory(copy)
            memory, file = copy.memory, copy.file
            assert file is not None
            self._start(copy, lambda: file.read(memory))
        if not copy.is_checked:
            memory = copy.memory
            self._start(copy, lambda: self._check(name, copy, memory))
            copy.is_checked = True

    def sums(self, name: str) -> Tensor:
        """The sums of a copy as it was written."""
        copy = self._copies[name]
        self._wait(copy)
        assert copy.sums is not None
        return copy.sums

    @property
    def in_memory(self) -> tuple[str, ...]:
        return tuple(name for name, copy in self._copies.items() if copy.memory is not None)

    def _used(self, name: str) -> _Copy:
        copy = self._copies.pop(name, None) or _Copy()
        self._copies[name] = copy
        return copy

    def _memory(self, wanting: _Copy) -> list[Tensor]:
        """Memory for a copy that has none: new, or that of the copy that was not used for longest."""
        holders = [copy for copy in self._copies.values() if copy.memory is not None and copy is not wanting]
        if self._slots is None or len(holders) < self._slots:
            return host_like(self._like)
        victim = holders[0]
        memory = victim.memory
        assert memory is not None and self._spill_dir is not None
        if not victim.file_is_current:
            victim.file = file = victim.file or _SpillFile(self._spill_dir, self._like)
            self._start(victim, lambda: file.write(memory))
        victim.memory, victim.file_is_current, victim.is_checked = None, True, False
        return memory

    def _check(self, name: str, copy: _Copy, memory: list[Tensor]) -> None:
        assert copy.sums is not None
        found = self._checks.sums(memory)
        if not torch.equal(found, copy.sums):
            odd = self._checks.odd_one(copy.sums, found)
            raise WeightDigestError(f"host copy of resident {name} is damaged: {odd}")

    def _start(self, copy: _Copy, job: Callable[[], None]) -> None:
        copy.jobs.append(self._worker.submit(job))

    def _wait(self, copy: _Copy) -> None:
        """Until all jobs of a copy are done. Raises what the first of them raised; the copy is checked anew then."""
        jobs, copy.jobs = copy.jobs, []
        try:
            for job in jobs:
                job.result()
        except BaseException:
            copy.is_checked = False
            raise

    def _wait_all(self) -> None:
        self._worker.submit(lambda: None).result()


class _SpillFile:
    """Room for one copy in an unnamed file, mapped into memory."""

    def __init__(self, directory: Path, like: Buffers) -> None:
        """Raises OSError if the disk has no room for it."""
        starts = list(accumulate((-(-buffer.nbytes // _ALIGNMENT) * _ALIGNMENT for buffer in like), initial=0))
        with tempfile.TemporaryFile(dir=directory) as file:
            os.posix_fallocate(file.fileno(), 0, starts[-1] + 1)  # else a full disk would be a SIGBUS later
            mapped = mmap.mmap(file.fileno(), starts[-1] + 1)
        whole = torch.frombuffer(mapped, dtype=torch.uint8)
        self._buffers = [
            whole[start : start + buffer.nbytes].view(buffer.dtype).view(buffer.shape)
            for start, buffer in zip(starts, like, strict=False)
        ]

    def write(self, sources: Buffers) -> None:
        transfer(sources, self._buffers)

    def read(self, targets: Buffers) -> None:
        transfer(self._buffers, targets)
