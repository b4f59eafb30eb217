"""When to stop asking an endpoint that gives no answers: within one call, and from call to call."""

import math
import threading
import time
from collections.abc import Callable


class FailureBudget:
    """How many more questions of a call may fail before the rest is not asked."""

    def __init__(self, *, num_questions: int, max_missing_share: float, min_questions: int) -> None:
        counts = num_questions >= min_questions
        self._left = math.floor(max_missing_share * num_questions) + 1 if counts else num_questions
        self._lock = threading.Lock()
        self.last_error = ""

    @property
    def is_spent(self) -> bool:
        return self._left <= 0

    def spend(self, error: str) -> None:
        with self._lock:
            self._left -= 1
            self.last_error = error


class Outage:
    """Whether an endpoint has stopped answering: `limit` questions in a row got no answer, after all attempts.

    It lasts until a question is answered. For `pause_s` seconds after the last failure nothing is to be asked at all.
    """

    def __init__(self, *, limit: int, pause_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._pause_s = pause_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._pause_ends = -math.inf
        self.last_error = ""

    @property
    def is_on(self) -> bool:
        return self._failures >= self._limit

    @property
    def is_pausing(self) -> bool:
        return self.is_on and self._clock() < self._pause_ends

    def failed(self, error: str) -> None:
        with self._lock:
            self._failures += 1
            self.last_error = error
            self._pause_ends = self._clock() + self._pause_s

    def answered(self) -> None:
        with self._lock:
            self._failures = 0
