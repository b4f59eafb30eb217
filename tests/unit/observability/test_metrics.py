import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seif_nemo.observability.metrics import MetricsWriter, chronological, decode_line, encode_line, latest, read_metrics
from seif_nemo.types.records import Phase, StepMetrics, UnitKey


def step(round_: int, phase: Phase, number: int, **values: float) -> StepMetrics:
    return StepMetrics(key=UnitKey(round_, phase, number), time_s=100.0, values=values)


def test_a_line_has_the_documented_form(tmp_path: Path) -> None:
    path = tmp_path / "new" / "metrics.jsonl"
    with MetricsWriter(path) as writer:
        writer.write(StepMetrics(UnitKey(1, Phase.INSTRUCTOR, 3), 12.5, {"reward/mean": 0.25}))
    assert path.read_text() == (
        '{"round": 1, "phase": "instructor", "step": 3, "time_s": 12.5, "values": {"reward/mean": 0.25}}\n'
    )


def test_a_line_is_on_disk_before_the_writer_closes(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path / "metrics.jsonl") as writer:
        writer.write(step(0, Phase.EVALUATION, 0, a=1.0))
        assert read_metrics(tmp_path / "metrics.jsonl") == [step(0, Phase.EVALUATION, 0, a=1.0)]


def test_last_line_of_a_step_counts_and_order_is_round_phase_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    written = [
        step(1, Phase.FOLLOWER, 1, a=1.0),
        step(1, Phase.INSTRUCTOR, 10, a=2.0),
        step(1, Phase.INSTRUCTOR, 9, a=3.0),
        step(1, Phase.INSTRUCTOR, 10, a=4.0),
        step(0, Phase.EVALUATION, 0, a=5.0),
        step(1, Phase.PROBE_BEFORE, 0, a=6.0),
    ]
    with MetricsWriter(path) as writer:
        for metrics in written:
            writer.write(metrics)
    assert [m.values["a"] for m in read_metrics(path)] == [5.0, 6.0, 3.0, 4.0, 1.0]
    found = latest(read_metrics(path), 1, Phase.INSTRUCTOR)
    assert found is not None
    assert (found.key.step, found.values["a"]) == (10, 4.0)
    assert latest(read_metrics(path), 2, Phase.INSTRUCTOR) is None


@pytest.mark.parametrize("keep", [1, 17, 60])
def test_torn_last_line_is_ignored_by_readers_and_removed_by_the_next_writer(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "metrics.jsonl"
    first, second = step(1, Phase.INSTRUCTOR, 0, a=1.0), step(1, Phase.INSTRUCTOR, 1, a=2.0)
    path.write_text(encode_line(first) + "\n" + encode_line(second)[:keep])
    assert read_metrics(path) == [first]
    with MetricsWriter(path) as writer:
        assert path.read_text() == encode_line(first) + "\n"
        writer.write(second)
    assert read_metrics(path) == [first, second]


def test_only_a_torn_line_leaves_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"round": 1, \xc3')
    MetricsWriter(path).close()
    assert path.read_bytes() == b""


def test_a_whole_last_line_without_newline_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first, second = step(1, Phase.INSTRUCTOR, 0, a=1.0), step(1, Phase.INSTRUCTOR, 1, a=2.0)
    path.write_text(encode_line(first))
    with MetricsWriter(path) as writer:
        writer.write(second)
    assert read_metrics(path) == [first, second]


def test_a_torn_line_longer_than_one_block_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = step(1, Phase.INSTRUCTOR, 0, a=1.0)
    path.write_text(encode_line(first) + "\n" + "x" * 200_000)
    MetricsWriter(path).close()
    assert path.read_text() == encode_line(first) + "\n"


@pytest.mark.parametrize(
    "bad", ["{}", "[1]", "not json", '{"round": 1, "phase": "lunch", "step": 0, "time_s": 0, "values": {}}']
)
def test_a_bad_line_in_the_middle_is_an_error_with_its_number(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "metrics.jsonl"
    good = encode_line(step(1, Phase.INSTRUCTOR, 0))
    path.write_text(f"{good}\n{bad}\n{good}\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2: "):
        read_metrics(path)


def test_values_that_json_has_no_number_for_survive_as_strict_json() -> None:
    line = encode_line(step(1, Phase.FOLLOWER, 0, a=math.nan, b=math.inf, c=-math.inf))
    values = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["values"]
    assert values == {"a": "NaN", "b": "Infinity", "c": "-Infinity"}
    back = decode_line(line).values
    assert math.isnan(back["a"])
    assert (back["b"], back["c"]) == (math.inf, -math.inf)


@given(
    round_=st.integers(0, 99),
    phase=st.sampled_from(Phase),
    number=st.integers(0, 10**6),
    values=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.floats(allow_nan=False)),
)
def test_every_step_survives_the_line(round_: int, phase: Phase, number: int, values: dict[str, float]) -> None:
    metrics = StepMetrics(UnitKey(round_, phase, number), 1.5, values)
    line = encode_line(metrics)
    assert "\n" not in line
    assert decode_line(line) == metrics


def test_phases_sort_in_the_order_of_a_round() -> None:
    keys = [UnitKey(1, phase, 0) for phase in sorted(Phase)]  # alphabetical: evaluation first
    assert [key.phase.value for key in sorted(keys, key=chronological)] == [
        "probe_before", "instructor", "probe_after", "synthesis", "follower", "evaluation",
    ]  # fmt: skip


def test_tensorboard_asked_for_but_absent_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorboard", None)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        MetricsWriter(tmp_path / "metrics.jsonl", tensorboard_dir=tmp_path / "tb")


def test_tensorboard_counts_the_steps_of_a_phase_over_rounds_and_attempts(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path, board = tmp_path / "metrics.jsonl", tmp_path / "tb"
    with MetricsWriter(path, tensorboard_dir=board) as writer:
        writer.write(step(1, Phase.INSTRUCTOR, 0, r=0.5))
        writer.write(step(1, Phase.INSTRUCTOR, 1, r=0.25))
    with MetricsWriter(path, tensorboard_dir=board) as writer:
        writer.write(step(1, Phase.INSTRUCTOR, 1, r=0.75))  # redone
        writer.write(step(2, Phase.INSTRUCTOR, 0, r=1.0))
    events = EventAccumulator(str(board))
    events.Reload()
    assert {e.step: e.value for e in events.Scalars("instructor/r")} == {0: 0.5, 1: 0.75, 2: 1.0}
