import pytest

from seif_nemo.judging.retrying import Backoff, with_retries
from seif_nemo.protocols.judging import JudgeUnavailableError

BACKOFF = Backoff(attempts=4, first_delay_s=1.5, max_delay_s=5.0)


class Failing:
    """Raises the errors in turn, then says "done"."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def test_waits_double_up_to_the_limit_and_the_judge_may_ask_for_more() -> None:
    waits: list[float] = []
    call = Failing(
        JudgeUnavailableError("a"), JudgeUnavailableError("b", retry_after_s=4.0), JudgeUnavailableError("c")
    )
    assert with_retries(call, BACKOFF, sleep=waits.append) == "done"
    assert waits == [1.5, 4.0, 5.0]
    assert BACKOFF.delay_s(10_000) == BACKOFF.delay_s(0, asked_for_s=1e9) == 5.0
    assert [Backoff(3, 0.0, 0.0).delay_s(n) for n in (0, 5)] == [0.0, 0.0]


def test_the_last_error_is_raised_after_the_last_attempt() -> None:
    waits: list[float] = []
    call = Failing(*(JudgeUnavailableError(str(number)) for number in range(9)))
    with pytest.raises(JudgeUnavailableError, match="3"):
        with_retries(call, BACKOFF, sleep=waits.append)
    assert (call.calls, waits) == (4, [1.5, 3.0, 5.0])
    once = Failing(JudgeUnavailableError("x"))
    with pytest.raises(JudgeUnavailableError):
        with_retries(once, Backoff(1, 1.0, 1.0), sleep=waits.append)
    assert once.calls == 1


@pytest.mark.parametrize("error", [JudgeUnavailableError("no", retryable=False), KeyError("a fault")])
def test_what_cannot_be_retried_is_raised_at_once(error: Exception) -> None:
    call = Failing(error)
    with pytest.raises(type(error)):
        with_retries(call, BACKOFF, sleep=lambda _: None)
    assert call.calls == 1
