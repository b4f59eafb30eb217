import signal

import pytest

from seif_nemo.evolution.stopping import StopRequest, StopRequestedError


@pytest.fixture
def restore_handlers():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_stops_at_the_end_of_the_step(number, restore_handlers):
    stop = StopRequest(lambda flag: flag)
    stop.listen()
    stop.raise_if_asked()
    signal.raise_signal(number)
    with pytest.raises(StopRequestedError):
        stop.raise_if_asked()


def test_another_ranks_wish_counts(restore_handlers):
    with pytest.raises(StopRequestedError):
        StopRequest(lambda flag: True).raise_if_asked()


def test_a_second_interrupt_stops_at_once_but_a_second_sigterm_does_not(restore_handlers):
    stop = StopRequest(lambda flag: flag)
    stop.listen()
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
