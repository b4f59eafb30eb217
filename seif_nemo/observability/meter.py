"""How far a long reading or writing of tensors has come, on a terminal."""

import time
from collections.abc import Callable
from typing import TextIO

from seif_nemo.observability.summary import format_duration

_INTERVAL_S = 0.2
_GB = 1e9


class Meter:
    """One live line: tensors and GB of all that there are, GB/s, time left. Silent where `stream` is no terminal."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._clock = clock
        self.start("", 0, 0)

    def start(self, what: str, tensors: int, nbytes: int) -> None:
        """Begin with a part of the work: `tensors` of `nbytes` together."""
        self._what, self._tensors, self._bytes = what, tensors, nbytes
        self._done, self._done_bytes = 0, 0
        self._started, self._shown = self._clock(), -1.0

    def add(self, nbytes: int) -> None:
        """One more tensor is done."""
        self._done += 1
        self._done_bytes += nbytes
        now = self._clock()
        if self._live and (now - self._shown >= _INTERVAL_S or self._done == self._tensors):
            self._shown = now
            self._stream.write(f"\r\x1b[K{self.line(now - self._started)}")
            self._stream.flush()

    def line(self, seconds: float) -> str:
        """The line after so many seconds of this part."""
        speed = self._done_bytes / seconds if seconds > 0 else 0.0
        left = f", about {format_duration((self._bytes - self._done_bytes) / speed)} left" if speed else ""
        size = f"{self._done_bytes / _GB:.2f}/{self._bytes / _GB:.2f} GB, {speed / _GB:.2f} GB/s"
        return f"{self._what}: {self._done}/{self._tensors} tensors, {size}{left}"

    def close(self) -> None:
        """Leave the line."""
        if self._live and self._shown >= 0:
            self._stream.write("\n")
            self._stream.flush()
