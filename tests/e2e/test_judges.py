"""Whole runs with a model judge: one that cannot judge stops the run, a remote one judges and is measured."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seif_nemo.observability.metrics import read_metrics
from seif_nemo.observability.summary import value_of
from seif_nemo.types.records import Phase
from tests.chat_server import Reply, chat_server, said
from tests.e2e.attempts import Attempt, num_ledger_lines, outcome, parquet_bytes
from tests.e2e.test_resume import overrides

WORLD_SIZE = 2


@pytest.fixture
def heldout(tmp_path: Path) -> Path:
    """Prompts that rules cover in part."""
    path = tmp_path / "heldout.parquet"
    rows = [
        {"seed_question": f"Tell me about lake {index}.", "constraint": ["use at most 40 words", "sound like a pirate"]}
        for index in range(24)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def with_judge(tiny_model: Path, root: Path, heldout: Path, *more: str) -> list[str]:
    return [
        *overrides(tiny_model, root, "run"),
        f"data.heldout={heldout}",
        "evolution.rounds=1",
        "algorithm.instructor.max_steps=2",
        "algorithm.follower.max_steps=2",
        "reward.judging=rules_then_model",
        *more,
    ]


def test_a_judge_without_verdicts_stops_the_run_with_one_line(tiny_model: Path, heldout: Path, tmp_path: Path) -> None:
    arguments = with_judge(tiny_model, tmp_path, heldout, "reward.judge_mode=logprob")
    attempt = Attempt(WORLD_SIZE, arguments, tmp_path / "log")
    assert attempt.wait(timeout_s=120) == [4] * WORLD_SIZE, (tmp_path / "log.0").read_text()
    lines = [line for line in (tmp_path / "log.0").read_text().splitlines() if "verdict on" in line]
    # The tiny model's context is shorter than the judge's prompt.
    assert len(lines) == 1 and lines[0].startswith("seif_nemo: the judge (base) gave no verdict on ")
    assert "(too_long " in lines[0] and "reward.max_missing_share=0.2" in lines[0]
    assert "Traceback" not in (tmp_path / "log.0").read_text() + (tmp_path / "log.1").read_text()


def test_a_remote_judge_is_asked_once_per_question_and_measured(
    tiny_model: Path, heldout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(body: dict[str, Any]) -> Reply:
        prompt = body["messages"][-1]["content"]
        code = prompt.split("<<< ")[1][:8]
        asked.append(prompt)
        return said(f"[[{code} {'yes' if len(prompt) % 2 else 'no'}]]")

    monkeypatch.setenv("no_proxy", "*")
    with chat_server(answer) as server:
        arguments = with_judge(
            tiny_model, tmp_path, heldout, f"reward.judge_endpoint={server.url}", "reward.judge_model=coin"
        )
        attempt = Attempt(WORLD_SIZE, arguments, tmp_path / "log")
        assert attempt.wait(timeout_s=240) == [0] * WORLD_SIZE, (tmp_path / "log.0").read_text()
    metrics = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert len(asked) == len(set(asked))
    assert 1 + sum(value_of(m, "judge/asked") or 0 for m in metrics) == len(asked), "the first one is a trial"
    steps = [m for m in metrics if m.key.phase in (Phase.INSTRUCTOR, Phase.FOLLOWER)]
    assert len(steps) == 4
    assert all(1 <= (value_of(m, "judge/meter_questions") or 0) <= 16 for m in steps)
    assert all(value_of(m, "judge/meter_missing") == 0 for m in steps)
    rates = [value_of(m, f"judge/false_{kind}_rate") for m in steps for kind in ("pass", "fail")]
    known = [rate for rate in rates if rate is not None]
    assert len(known) >= 4 and 0.2 < sum(known) / len(known) < 0.8, "a coin is wrong half the time"
    (before, after) = [m for m in metrics if m.key.phase is Phase.EVALUATION]
    assert (value_of(before, "eval/missing"), value_of(after, "eval/missing")) == (0, 0)


def test_a_run_goes_on_where_its_judge_is_served_now(
    tiny_model: Path, heldout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(body: dict[str, Any]) -> Reply:
        prompt = body["messages"][-1]["content"]
        return said(f"[[{prompt.split('<<< ')[1][:8]} {'yes' if len(prompt) % 2 else 'no'}]]")

    def run(name: str, url: str, *more: str) -> Attempt:
        arguments = with_judge(
            tiny_model,
            tmp_path / name,
            heldout,
            f"reward.judge_endpoint={url}",
            "reward.judge_model=coin",
            "reward.answers_per_instruction=2",
            "algorithm.instructor_reward.kind=band",
            "evolution.solvability_samples=2",
            *more,
        )
        return Attempt(WORLD_SIZE, arguments, tmp_path / f"log-{name}")

    monkeypatch.setenv("no_proxy", "*")
    with chat_server(answer) as server:
        # One question after the other, against questions that are asked while others are generated.
        assert run("whole", server.url, "reward.overlap_workers=0").wait(timeout_s=240) == [0] * WORLD_SIZE
    whole, killed = tmp_path / "whole" / "run", tmp_path / "killed" / "run"
    for point in (2, 5, None):
        with chat_server(answer) as server:  # at a port of its own each time
            attempt = run("killed", server.url)
            if point is None:
                assert attempt.wait(timeout_s=240) == [0] * WORLD_SIZE, (tmp_path / "log-killed.0").read_text()
            else:
                assert attempt.wait_until(lambda point=point: num_ledger_lines(killed) >= point, timeout_s=120)
                attempt.kill()
    assert outcome(killed) == outcome(whole)
    assert parquet_bytes(killed) == parquet_bytes(whole)
