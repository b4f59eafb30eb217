import io

import pytest

from seif_nemo.observability.progress import PlannedPhase, Progress, TimeLeft
from seif_nemo.types.records import Phase, StepMetrics, UnitKey


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


PLAN = [
    PlannedPhase(0, Phase.EVALUATION, 1),
    PlannedPhase(1, Phase.INSTRUCTOR, 4),
    PlannedPhase(1, Phase.SYNTHESIS, 1),
    PlannedPhase(1, Phase.FOLLOWER, 10),
    PlannedPhase(1, Phase.EVALUATION, 1),
]


def step(round_: int, phase: Phase, number: int, seconds: float | None = None, **values: float) -> StepMetrics:
    total = {} if seconds is None else {"time_s/total": seconds}
    named = {name.replace("__", "/"): value for name, value in values.items()}
    return StepMetrics(UnitKey(round_, phase, number), 0.0, {**named, **total})


def test_time_left_grows_complete_as_phase_kinds_are_measured() -> None:
    progress = Progress(PLAN, io.StringIO(), clock=Clock())
    assert progress.time_left() == TimeLeft(0.0, complete=False)
    progress.update(step(0, Phase.EVALUATION, 0, 30.0))
    assert progress.time_left() == TimeLeft(30.0, complete=False)  # the other evaluation; nothing else is known
    progress.update(step(1, Phase.INSTRUCTOR, 0, 50.0))
    progress.update(step(1, Phase.INSTRUCTOR, 1, 5.0))
    progress.update(step(1, Phase.INSTRUCTOR, 2, 7.0))
    # Median 7; one Instructor step, ten Follower steps at the Instructor's speed, one evaluation; synthesis unknown.
    assert progress.time_left() == TimeLeft(7.0 + 70.0 + 30.0, complete=False)
    progress.update(
        step(1, Phase.SYNTHESIS, 0, 9.0)
    )  # the Instructor stopped a step early: that step is not waited for
    assert progress.time_left() == TimeLeft(70.0 + 30.0, complete=True)
    progress.update(step(1, Phase.FOLLOWER, 0, 2.0))
    assert progress.time_left() == TimeLeft(9 * 2.0 + 30.0, complete=True)
    progress.replan([*PLAN[:3], PlannedPhase(1, Phase.FOLLOWER, 3), PLAN[4]])
    assert progress.time_left() == TimeLeft(2 * 2.0 + 30.0, complete=True)
    for number in (1, 2):
        progress.update(step(1, Phase.FOLLOWER, number, 2.0))
    progress.update(step(1, Phase.EVALUATION, 0, 30.0))
    assert progress.time_left() == TimeLeft(0.0, complete=True)


def test_steps_without_their_own_time_take_the_clock() -> None:
    clock = Clock()
    progress = Progress([PlannedPhase(1, Phase.FOLLOWER, 3)], io.StringIO(), clock=clock)
    clock.now += 8.0
    progress.update(step(1, Phase.FOLLOWER, 0))
    assert progress.time_left() == TimeLeft(16.0, complete=True)


def test_resume_counts_done_steps_and_learns_their_speed_but_not_the_time_between_attempts() -> None:
    clock = Clock()
    stream = io.StringIO()
    progress = Progress([PlannedPhase(1, Phase.FOLLOWER, 6)], stream, clock=clock)
    progress.resume([step(1, Phase.FOLLOWER, 0, 4.0), step(1, Phase.FOLLOWER, 1, 4.0), step(1, Phase.FOLLOWER, 2)])
    assert stream.getvalue() == ""
    assert progress.time_left() == TimeLeft(12.0, complete=True)
    clock.now += 4.0
    progress.update(step(1, Phase.FOLLOWER, 2, 4.0))  # redone
    assert progress.time_left() == TimeLeft(12.0, complete=True)
    progress.update(step(1, Phase.FOLLOWER, 3, 4.0, reward__mean=0.5))
    assert stream.getvalue().splitlines()[0].startswith("Round 1/1 | Training the Follower | step 3/6")


def test_a_log_file_gets_first_and_last_step_and_one_line_per_ten_seconds() -> None:
    clock = Clock()
    stream = io.StringIO()
    progress = Progress([PlannedPhase(2, Phase.INSTRUCTOR, 30)], stream, clock=clock)
    for number in range(30):
        clock.now += 1.0
        progress.update(step(2, Phase.INSTRUCTOR, number, 1.0, reward__mean=0.4123, generate__tokens_per_s=13456.7))
    lines = stream.getvalue().splitlines()
    assert [line.split(" | ")[2] for line in lines] == ["step 1/30", "step 11/30", "step 21/30", "step 30/30"]
    assert lines[1] == (
        "Round 2/2 | Training the Instructor | step 11/30 | reward 0.412 | 13,457 tokens/s | about 19 s left"
    )
    assert lines[3] == "Round 2/2 | Training the Instructor | step 30/30 | reward 0.412 | 13,457 tokens/s"


def test_the_live_line_is_rewritten_in_place_and_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    progress = Progress([PlannedPhase(1, Phase.FOLLOWER, 3)], stream, clock=Clock())
    for number in range(2):
        progress.update(step(1, Phase.FOLLOWER, number, 1.0, reward__mean=0.5))
    assert stream.getvalue() == "\rRound 1/1 | Training the Follower | ste\x1b[K" * 2
    progress.update(step(1, Phase.FOLLOWER, 2, 1.0))
    assert stream.getvalue().endswith("\x1b[K\n")  # a finished phase stays on the screen
    length = len(stream.getvalue())
    progress.close()
    assert len(stream.getvalue()) == length


def test_every_phase_has_its_own_human_name_and_result() -> None:
    clock = Clock()
    stream = io.StringIO()
    plan = [
        PlannedPhase(1, Phase.PROBE_AFTER, 1),
        PlannedPhase(1, Phase.SYNTHESIS, 1),
        PlannedPhase(1, Phase.EVALUATION, 1),
    ]
    progress = Progress(plan, stream, clock=clock)
    progress.update(step(1, Phase.PROBE_AFTER, 0, 1.0, probe__difficulty=0.5))
    progress.update(step(1, Phase.SYNTHESIS, 0, 1.0, synthesis__kept=960.0))
    progress.update(step(1, Phase.EVALUATION, 0, 1.0, eval__follow_rate=0.7361))
    assert stream.getvalue().splitlines() == [
        "Round 1/1 | Probing the Instructor (after) | difficulty 0.500 | over 0 s left",
        "Round 1/1 | Writing instructions | kept 960 | over 0 s left",
        "Round 1/1 | Evaluating the Follower | follow rate 0.736",
    ]
