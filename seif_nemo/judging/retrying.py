"""Asking again, later and later."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from seif_nemo.protocols.judging import JudgeUnavailableError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """`attempts` in all; the waits between them double from `first_delay_s`, up to `max_delay_s`."""

    attempts: int
    first_delay_s: float
    max_delay_s: float

    def delay_s(self, attempt: int, *, asked_for_s: float = 0.0) -> float:
        """The wait after attempt 0, 1, …; what the judge asked for counts up to `max_delay_s`."""
        doubled = self.first_delay_s * 2 ** min(attempt, 60)
        return min(max(doubled, asked_for_s), self.max_delay_s)


def with_retries(call: Callable[[], T], backoff: Backoff, *, sleep: Callable[[float], object] = time.sleep) -> T:
    """What `call` gives in the end. Raises the last JudgeUnavailableError, at once if it cannot be retried."""
    for attempt in range(backoff.attempts - 1):
        try:
            return call()
        except JudgeUnavailableError as error:
            if not error.retryable:
                raise
            sleep(backoff.delay_s(attempt, asked_for_s=error.retry_after_s))
    return call()
