import math

import pytest

from seif_nemo.observability.summary import (
    PHASE_NAMES,
    RoundSummary,
    format_duration,
    format_rate,
    round_table,
    summarise_rounds,
)
from seif_nemo.types.records import Phase, StepMetrics, UnitKey


def step(round_: int, phase: Phase, number: int, values: dict[str, float]) -> StepMetrics:
    return StepMetrics(UnitKey(round_, phase, number), 0.0, values)


METRICS = [
    step(0, Phase.EVALUATION, 0, {"eval/follow_rate": 0.463, "time_s/total": 10.0}),
    step(1, Phase.PROBE_BEFORE, 0, {"probe/difficulty": 0.21}),
    step(1, Phase.INSTRUCTOR, 0, {"time_s/total": 20.0}),
    step(1, Phase.INSTRUCTOR, 1, {"time_s/total": 22.0}),
    step(1, Phase.PROBE_AFTER, 0, {"probe/difficulty": 0.5, "time_s/total": 3.4}),
    step(1, Phase.SYNTHESIS, 0, {"gate/asked": 800, "gate/kept": 520}),
    step(1, Phase.SYNTHESIS, 1, {"synthesis/asked": 1500, "synthesis/kept": 960, "synthesis/conflict_share": 0.004}),
    step(1, Phase.FOLLOWER, 0, {"time_s/total": 40.0}),
    step(1, Phase.EVALUATION, 0, {"eval/follow_rate": 0.65, "time_s/total": 10.0}),
    step(2, Phase.PROBE_BEFORE, 0, {"probe/difficulty": math.nan}),
    step(2, Phase.SYNTHESIS, 0, {"gate/asked": 100, "gate/kept": 70}),
    step(3, Phase.EVALUATION, 0, {"eval/follow_rate": 0.6}),
]  # fmt: skip


def test_rounds_in_numbers() -> None:
    rows = summarise_rounds(METRICS)
    assert rows[0] == RoundSummary(0, 0.463, None, None, None, None, None, None, 0, 0, 10.0)
    assert rows[1] == RoundSummary(
        1, 0.65, pytest.approx(0.187), 0.21, 0.5, 960, 1500, 0.004, 2, 1, pytest.approx(95.4)
    )
    assert rows[2] == RoundSummary(
        2, None, None, None, None, None, None, None, 0, 0, None
    )  # synthesis is not merged yet
    assert rows[3].change == pytest.approx(-0.05)  # against round 1: round 2 was not evaluated


def test_the_table_is_aligned_plain_text() -> None:
    assert round_table(METRICS).splitlines() == [
        "round  follow rate  change  difficulty before  after  kept/asked  conflicts kept  steps I+F   wall time",
        "-------------------------------------------------------------------------------------------------------",
        "    0        0.463       -                  -      -           -               -          -        10 s",
        "    1        0.650  +0.187              0.210  0.500    960/1500           0.004        2+1  1 min 35 s",
        "    2            -       -                  -      -           -               -          -           -",
        "    3        0.600  -0.050                  -      -           -               -          -           -",
    ]


def test_an_empty_run_has_an_empty_table() -> None:
    assert summarise_rounds([]) == []
    assert len(round_table([]).splitlines()) == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7620, "2 h 07 min"),
        (86_399, "1 d 00 h"),
        (273_600, "3 d 04 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_rates() -> None:
    assert (format_rate(None), format_rate(0.5), format_rate(0.5, signed=True), format_rate(-0.25, signed=True)) == (
        "-", "0.500", "+0.500", "-0.250",
    )  # fmt: skip


def test_every_phase_has_a_name() -> None:
    assert set(PHASE_NAMES) == set(Phase)
    assert len(set(PHASE_NAMES.values())) == len(Phase)
