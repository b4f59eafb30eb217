import pytest

from seif_nemo.observability.timers import Timers


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_nested_names_are_inclusive_and_a_name_inside_itself_counts_once() -> None:
    clock = Clock()
    timers = Timers(clock)
    with timers("total"):
        clock.now += 1
        with timers("generate"):
            clock.now += 2
            with timers("generate"), timers("total"):
                clock.now += 4
        with timers("train"):
            clock.now += 8
        with timers("generate"):
            clock.now += 16
    assert timers.drain() == {"generate": 22.0, "train": 8.0, "total": 31.0}
    assert timers.drain() == {}


def test_a_block_that_is_open_at_the_drain_counts_in_the_next_one() -> None:
    clock = Clock()
    timers = Timers(clock)
    with timers("save"):
        clock.now += 3
        assert timers.drain() == {}
        clock.now += 1
    assert timers.drain() == {"save": 4.0}


def test_an_error_in_a_block_still_ends_its_time() -> None:
    clock = Clock()
    timers = Timers(clock)

    def fail() -> None:
        with timers("train"):
            clock.now += 5
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with timers("train"):
        clock.now += 1
    assert timers.drain() == {"train": 6.0}
