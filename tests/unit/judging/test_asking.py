import _thread
import signal
import threading
import time

import pytest

from seif_nemo.judging.asking import side_by_side


def test_results_are_in_order_and_at_most_so_many_run_at_once() -> None:
    running, most = [0], [0]
    lock, together = threading.Lock(), threading.Barrier(3)

    def work(number: int) -> int:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        if number < 3:
            together.wait(30)
        time.sleep(0.03 if number % 2 else 0.01)
        with lock:
            running[0] -= 1
        return number * number

    stop = threading.Event()
    assert side_by_side(work, range(9), workers=3, stop=stop) == [n * n for n in range(9)]
    assert most == [3]
    assert side_by_side(work, [], workers=3, stop=stop) == []
    assert not stop.is_set()


def test_an_error_goes_on_at_once_and_nothing_new_begins() -> None:
    stop, begun = threading.Event(), list[int]()

    def work(number: int) -> None:
        begun.append(number)
        if number == 1:
            raise KeyError("x")
        stop.wait(30)

    started = time.monotonic()
    with pytest.raises(KeyError, match="x"):
        side_by_side(work, range(9), workers=2, stop=stop)
    assert time.monotonic() - started < 5
    assert stop.is_set()
    time.sleep(0.05)
    assert sorted(begun) == [0, 1]


def test_an_interrupt_leaves_running_work_behind() -> None:
    stop, release, begun = threading.Event(), threading.Event(), list[int]()

    def work(number: int) -> None:
        begun.append(number)
        release.wait(30)

    # In the background of a shell SIGINT is ignored, and Python leaves that as it finds it.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, _thread.interrupt_main)
    timer.start()
    started = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            side_by_side(work, range(9), workers=2, stop=stop)
        assert time.monotonic() - started < 5
    finally:
        signal.signal(signal.SIGINT, previous)
        release.set()
    assert stop.is_set()
    time.sleep(0.05)
    assert sorted(begun) == [0, 1]
