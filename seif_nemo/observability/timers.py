"""Wall time and peak memory by name, for the `time_s/…` and `memory_gib/…` values of a step."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from seif_nemo.observability.memory import PeakMemory

_DURING = "during: "


class Timers:
    """Adds up seconds by name: `with timers("generate"): …`, then `timers.drain()` once per step.

    Timers may nest. Each name gets the whole time between its start and end, what runs inside under another name
    included; a name inside itself counts once. Time is taken when Python returns: work queued on a GPU must be waited
    for inside the block. With `memory`, each name also gets the highest peak inside any of its blocks. An exception
    that leaves a block gets a note with the names that were open, see `during`.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter, *, memory: PeakMemory | None = None) -> None:
        self._clock = clock
        self._memory = memory
        self._seconds: dict[str, float] = {}
        self._peaks: dict[str, float] = {}
        self._open: list[str] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        is_outermost = name not in self._open
        self._take_peak()
        self._open.append(name)
        start = self._clock()
        try:
            yield
        except BaseException as error:
            if during(error) is None:
                error.add_note(_DURING + " > ".join(self._open))
            raise
        finally:
            seconds = self._clock() - start
            self._take_peak()
            self._open.pop()
            if is_outermost:
                self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def reset(self) -> None:
        """Forget all that has ended."""
        self._seconds, self._peaks = {}, {}

    def drain(self) -> dict[str, float]:
        """Seconds by name since the last drain, and forgets them. An open block counts in the drain after its end."""
        seconds, self._seconds = self._seconds, {}
        return seconds

    def drain_peaks(self) -> dict[str, float]:
        """GiB by name since the last drain, and forgets them; empty where memory is not measured."""
        peaks, self._peaks = self._peaks, {}
        return peaks

    def _take_peak(self) -> None:
        """The peak since the last change of what is open belongs to all that was open."""
        if self._memory is not None:
            peak = self._memory.take()
            for name in self._open:
                self._peaks[name] = max(peak, self._peaks.get(name, 0.0))


def during(error: BaseException) -> str | None:
    """The names that were open where an exception left its first timer, outermost first; None if there were none."""
    notes: list[str] = getattr(error, "__notes__", [])
    return next((note.removeprefix(_DURING) for note in notes if note.startswith(_DURING)), None)
