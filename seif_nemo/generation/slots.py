"""Which request sits in which row of the batch.

Rows 0..width-1 are decoded together. A row is live until its response ends; then the next waiting prompt takes it, or,
when none waits, live rows move down from the end so that the batch gets narrower. Neither happens for every single row:
a prefill or a move costs about as much as a decoding step, so both wait until a worthwhile share of rows is dead.

Shape suffixes: R rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_REFILL_SHARE = 1 / 8  # of all rows, dead before waiting prompts are prefilled
_COMPACT_BELOW = 0.8  # live share of the width under which rows move

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Admission:
    """Request `requests[i]` takes row `rows[i]`."""

    rows: Indices
    requests: Indices


@dataclass(frozen=True, slots=True, eq=False)
class Moves:
    """The contents of row `sources[i]` go to row `targets[i]`. No row is both a source and a target."""

    sources: Indices
    targets: Indices


class SlotTable:
    """Rows and the queue of waiting requests. `num_rows` is at least 1; `waiting` are request indices in order."""

    def __init__(self, num_rows: int, waiting: Sequence[int]) -> None:
        assert num_rows >= 1
        self.live_R: NDArray[np.bool_] = np.zeros(num_rows, dtype=np.bool_)
        self.request_R: Indices = np.full(num_rows, -1, dtype=np.int64)
        self.width = 0
        self._waiting: Indices = np.array(waiting, dtype=np.int64)
        self._num_live = 0

    @property
    def num_live(self) -> int:
        return self._num_live

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def finished(self) -> bool:
        return self._num_live == 0 and len(self._waiting) == 0

    def admit(self, limit: int | None = None) -> Admission | None:
        """Gives dead rows to waiting requests, at most `limit`, lowest rows first; None if it is not worth it now.

        With no live row it always is, if something waits.
        """
        num_dead = len(self.live_R) - self._num_live
        count = min(num_dead, len(self._waiting))
        if count == 0 or (self._num_live > 0 and num_dead < len(self.live_R) * _REFILL_SHARE):
            return None
        if limit is not None:
            count = min(count, max(limit, 1))
        rows = np.flatnonzero(~self.live_R)[:count]
        requests, self._waiting = self._waiting[:count], self._waiting[count:]
        self.live_R[rows] = True
        self.request_R[rows] = requests
        self._num_live += count
        self.width = max(self.width, int(rows[-1]) + 1)
        return Admission(rows=rows, requests=requests)

    def next_waiting(self, count: int) -> Indices:
        """The requests that would be admitted next, at most `count`."""
        return self._waiting[:count]

    def retire(self, rows: Indices) -> None:
        """The responses in these live rows have ended."""
        assert self.live_R[rows].all()
        self.live_R[rows] = False
        self.request_R[rows] = -1
        self._num_live -= len(rows)

    def compact(self) -> Moves | None:
        """Narrows the batch to its live rows, if nothing waits and enough rows are dead. Says which rows moved."""
        if len(self._waiting) > 0 or self._num_live >= self.width * _COMPACT_BELOW:
            return None
        width, self.width = self.width, self._num_live
        targets = np.flatnonzero(~self.live_R[: self._num_live])
        sources = self._num_live + np.flatnonzero(self.live_R[self._num_live : width])
        self.live_R[targets], self.live_R[sources] = True, False
        self.request_R[targets], self.request_R[sources] = self.request_R[sources], -1
        return Moves(sources=sources, targets=targets)
