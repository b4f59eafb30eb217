"""The most memory of its own that a process held during a piece of work. Linux only.

Counted are anonymous pages (`RssAnon` in /proc/self/status): what was allocated. Pages of memory-mapped files are not:
the kernel takes them back when it needs room.
"""

import ctypes
import gc
import threading
from pathlib import Path
from types import TracebackType

_STATUS = Path("/proc/self/status")
_INTERVAL_S = 0.001


class AnonymousPeak:
    """`with AnonymousPeak() as peak: …`, then `peak.grown`: bytes above what there was at the start, at the worst.

    A thread samples every millisecond, so that shorter peaks may be missed. What was freed before is given back first.
    """

    def __enter__(self) -> "AnonymousPeak":
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps freed memory, which would hide that it is used again
        self._start = self._peak = anonymous_bytes()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def grown(self) -> int:
        return self._peak - self._start

    def _sample(self) -> None:
        while not self._ended.wait(_INTERVAL_S):
            self._peak = max(self._peak, anonymous_bytes())


def anonymous_bytes() -> int:
    """Anonymous memory of this process now."""
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{_STATUS} has no RssAnon")
