"""Stopping on request, at the end of the step in progress, on all ranks together."""

import signal
from collections.abc import Callable
from types import FrameType


class StopRequestedError(Exception):
    """The run was asked to stop and has; everything finished is on disk."""


class StopRequest:
    """Remembers that a signal came. A second SIGINT stops at once, in the middle of a step."""

    def __init__(self, agree: Callable[[bool], bool]) -> None:
        """`agree` makes one rank's wish every rank's (collective)."""
        self.agree = agree
        self._asked = False

    def listen(self) -> None:
        """Install the handlers for SIGINT, SIGTERM and SIGUSR1."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._remember)

    def is_asked(self) -> bool:
        """Whether any rank was asked. Collective."""
        return self.agree(self._asked)

    def raise_if_asked(self) -> None:
        """Raises StopRequestedError on every rank if any rank was asked. Collective."""
        if self.is_asked():
            raise StopRequestedError

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
