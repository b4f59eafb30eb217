"""Wall time by name, for the `time_s/…` values of a step."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Timers:
    """Adds up seconds by name: `with timers("generate"): …`, then `timers.drain()` once per step.

    Timers may nest. Each name gets the whole time between its start and end, what runs inside under another name
    included; a name inside itself counts once. Time is taken when Python returns: work queued on a GPU must be waited
    for inside the block.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seconds: dict[str, float] = {}
        self._depth: dict[str, int] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        depth = self._depth.get(name, 0)
        self._depth[name] = depth + 1
        start = self._clock()
        try:
            yield
        finally:
            self._depth[name] = depth
            if depth == 0:
                self._seconds[name] = self._seconds.get(name, 0.0) + self._clock() - start

    def drain(self) -> dict[str, float]:
        """Seconds by name since the last drain, and forgets them. An open block counts in the drain after its end."""
        seconds, self._seconds = self._seconds, {}
        return seconds
