import pytest

from seif_nemo.observability.timers import Timers, during


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


class Memory:
    """Peaks that a test writes: what is in use now, and the highest since it was last asked."""

    def __init__(self) -> None:
        self.now = self.high = 1.0

    def use(self, gib: float) -> None:
        self.now = gib
        self.high = max(self.high, gib)

    def take(self) -> float:
        high, self.high = self.high, self.now
        return high


def test_a_peak_belongs_to_all_that_was_open_and_to_nothing_else() -> None:
    memory = Memory()
    timers = Timers(memory=memory)
    memory.use(50)
    memory.use(1)
    with timers("total"):
        memory.use(3)
        memory.use(2)
        with timers("generate"):
            memory.use(7)
            memory.use(2)
        with timers("train"):
            memory.use(5)
        memory.use(4)
        with timers("generate"):
            memory.use(6)
    assert timers.drain_peaks() == {"total": 7, "generate": 7, "train": 5}
    assert timers.drain_peaks() == {}
    with timers("total"):
        memory.use(2)
    timers.reset()
    assert timers.drain_peaks() == timers.drain() == {}


def test_without_a_meter_there_are_no_peaks() -> None:
    timers = Timers()
    with timers("total"):
        pass
    assert timers.drain_peaks() == {}


def test_an_error_knows_what_was_open_where_it_came() -> None:
    timers = Timers()

    def fail() -> None:
        with timers("total"):
            with timers("save"):
                pass
            with timers("answer"), timers("generate"):
                raise RuntimeError

    with pytest.raises(RuntimeError) as caught:
        fail()
    assert during(caught.value) == "total > answer > generate"
    assert during(RuntimeError()) is None
