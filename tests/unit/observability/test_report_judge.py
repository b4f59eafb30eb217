"""The part of the report that says how far to trust the judge."""

from pathlib import Path

from seif_nemo.observability.metrics import MetricsWriter
from seif_nemo.observability.report.judge import judge_section
from seif_nemo.observability.report.loading import load_run
from seif_nemo.types.records import Phase, StepMetrics, UnitKey
from tests.unit.observability.html_tree import Node, parse

INSTRUCTOR = [
    {"judge/asked": 30, "judge/cache_hits": 2, "judge/meter_questions": 16, "judge/meter_missing": 0,
     "judge/false_pass_rate": 0.25, "judge/false_fail_rate": 0.125},
    {"judge/asked": 20, "judge/cache_hits": 0, "judge/meter_questions": 10, "judge/meter_missing": 3,
     "judge/missing/unparsable": 4, "judge/missing/undecided": 1, "judge/false_pass_rate": 0.75},
]  # fmt: skip


def _section(path: Path, **steps: list[dict[str, float]]) -> Node:
    with MetricsWriter(path / "metrics.jsonl") as writer:
        for phase, rows in steps.items():
            for number, values in enumerate(rows):
                writer.write(StepMetrics(UnitKey(1, Phase(phase), number), 1.0, values))
    return parse(str(judge_section(load_run(path)))).by_id("judge")


def test_rates_by_step_and_a_row_per_phase(tmp_path: Path) -> None:
    section = _section(tmp_path, instructor=INSTRUCTOR, follower=[{"judge/asked": 5, "judge/cache_hits": 1}])
    passes, fails = section.all("figure")
    assert passes.one("figcaption").text == "Instructor: false passes"
    assert [c.one("title").text for c in passes.all("circle")] == [
        "Instructor: false passes, 1: 0.25",
        "Instructor: false passes, 2: 0.75",
    ]
    assert [c.one("title").text for c in fails.all("circle")] == ["Instructor: false fails, 1: 0.125"]
    assert [p.text for p in section.all("p", "empty")] == [
        "Not yet: Follower has no step with a rate of false passes.",
        "Not yet: Follower has no step with a rate of false fails.",
    ]
    (rows,) = section.tables()
    assert rows[1:] == [
        ["1, Instructor", "26", "3", "0.500", "0.125", "50", "2", "undecided 1, unparsable 4"],
        ["1, Follower", "-", "-", "-", "-", "5", "1", "-"],
    ]


def test_not_yet_where_rules_judge_alone(tmp_path: Path) -> None:
    section = _section(tmp_path, instructor=[{"reward/mean": 0.5}])
    assert [p.text for p in section.all("p", "empty")] == ["Not yet: no training step has asked a model judge."]
    assert section.all("table") == section.all("figure") == []
