"""Work that waits for somebody else, many at a time, that an interrupt leaves behind."""

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_LOOK_UP_S = 0.2  # a signal that another thread caught is seen by the main one when it next wakes


def side_by_side(
    work: Callable[[T], R], items: Sequence[T], *, workers: int, stop: threading.Event, name: str = "judge"
) -> list[R]:
    """`work` of each item, in order, `workers` at a time.

    If this is interrupted, or a `work` raises, `stop` is set and the exception goes on at once: what runs then is not
    waited for, here or at the interpreter's end, and nothing new is begun. (A thread pool would wait for both.)
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, list[R], BaseException | None]] = queue.SimpleQueue()
    for index in range(len(items)):
        waiting.put(index)

    def run() -> None:
        while not stop.is_set():
            try:
                index = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((index, [work(items[index])], None))
            except BaseException as error:
                stop.set()
                done.put((index, [], error))

    results: dict[int, R] = {}
    try:
        for number in range(min(workers, len(items))):
            threading.Thread(target=run, name=f"{name}-{number}", daemon=True).start()
        while len(results) < len(items):
            try:
                index, result, error = done.get(timeout=_LOOK_UP_S)
            except queue.Empty:
                continue
            if error is not None:
                raise error
            results[index] = result[0]
    except BaseException:
        stop.set()
        raise
    return [results[index] for index in range(len(items))]
