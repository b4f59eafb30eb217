"""Reward work on responses that are finished, while others are still generated or the policy learns."""

import queue
import threading
from collections.abc import Callable

from seif_nemo.roles.judger import Item, RuleVerdicts

_LOOK_UP_S = 0.2  # a signal that another thread caught is seen by the main one when it next wakes


class HeadStart:
    """Runs `work` on items that are handed in one by one, `workers` at a time, on threads of this rank.

    It only prepares. What is not done in the end, or raised, is left to the collective call that needs it: there an
    error surfaces on all ranks. The threads are daemons, so that neither an interrupt nor the interpreter's end waits
    for them.
    """

    def __init__(self, work: Callable[[Item, threading.Event], RuleVerdicts], *, workers: int) -> None:
        self._work = work
        self._workers = workers
        self._waiting: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._begun: set[Item] = set()
        self._done: dict[Item, RuleVerdicts] = {}
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()

    def begin(self, item: Item) -> None:
        """Hand an item in; again is once."""
        if item in self._begun:
            return
        self._begun.add(item)
        self._waiting.put(item)
        if len(self._threads) < self._workers:
            thread = threading.Thread(target=self._run, name=f"reward-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def finish(self) -> dict[Item, RuleVerdicts]:
        """What is done. Begins nothing more and waits for what is under way."""
        self.abandon()
        for thread in self._threads:
            while thread.is_alive():
                thread.join(_LOOK_UP_S)
        return self._done

    def abandon(self) -> None:
        """Begin nothing more; wait for nothing."""
        self._stop.set()
        for _ in self._threads:
            self._waiting.put(None)

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None and not self._stop.is_set():
            try:
                self._done[item] = self._work(item, self._stop)
            except Exception:  # the collective call does it again and raises it for all ranks
                continue
