"""Sampling a step ahead: a killed run goes on with the rollouts of weights that are gone."""

import json
import shutil
from pathlib import Path

import pytest

from seif_nemo.evolution.upcoming import UPCOMING
from seif_nemo.observability.metrics import read_metrics
from seif_nemo.observability.summary import value_of
from seif_nemo.types.records import Phase
from tests.e2e.attempts import Attempt, num_ledger_lines, outcome, parquet_bytes
from tests.e2e.test_resume import overrides

TRAINING = (Phase.INSTRUCTOR, Phase.FOLLOWER)


def ahead(tiny_model: Path, root: Path, *more: str) -> list[str]:
    """One short round with a checkpoint every other step: two Instructor steps and five Follower steps."""
    return [
        *overrides(tiny_model, root, "run"),
        "algorithm.max_staleness=1",
        "algorithm.correction=token_cut",
        "evolution.rounds=1",
        "data.max_probe_seeds=4",
        "data.max_heldout_prompts=4",
        "algorithm.instructor.max_steps=2",
        "algorithm.follower.max_steps=5",
        "checkpoint.every_steps=2",
        *more,
    ]


@pytest.mark.parametrize("world_size, asynchronous", [(1, "false"), (2, "true")])
def test_a_killed_run_learns_from_the_rollouts_that_it_had(
    tiny_model: Path, tmp_path: Path, world_size: int, asynchronous: str
) -> None:
    how = f"checkpoint.asynchronous={asynchronous}"
    whole, killed = tmp_path / "whole" / "run", tmp_path / "killed" / "run"
    attempt = Attempt(world_size, ahead(tiny_model, whole.parent, how), tmp_path / "log-whole")
    assert attempt.wait(timeout_s=240) == [0] * world_size, (tmp_path / "log-whole.0").read_text()
    entries = outcome(whole)
    assert [UPCOMING in entries[f"1/follower/{step}"] for step in (1, 3, 4)] == [True, True, False]
    check_metrics(whole)

    arguments = ahead(tiny_model, killed.parent, how)
    last = next(i for i, key in enumerate(entries, start=1) if key == "1/follower/3")
    attempt = Attempt(world_size, arguments, tmp_path / "log-a")
    assert attempt.wait_until(lambda: num_ledger_lines(killed) >= last - 1, timeout_s=180)
    metrics = killed / "metrics.jsonl"
    attempt.wait_until(lambda: b'"follower", "step": 2' in metrics.read_bytes(), timeout_s=60)
    attempt.kill()  # after a step that no checkpoint has: it is done again
    if world_size == 1:
        check_that_damage_is_refused(killed, arguments, tmp_path / "copy")
    attempt = Attempt(world_size, arguments, tmp_path / "log-b")
    assert attempt.wait_until(lambda: num_ledger_lines(killed) >= last, timeout_s=180)
    attempt.kill()
    attempt = Attempt(world_size, arguments, tmp_path / "log-c")
    assert attempt.wait(timeout_s=240) == [0] * world_size, (tmp_path / "log-c.0").read_text()
    assert outcome(killed) == entries
    assert parquet_bytes(killed) == parquet_bytes(whole)


def check_metrics(run_dir: Path) -> None:
    """The first step of a phase is fresh and measures the engine; the others measure the lag alone."""
    for metrics in read_metrics(run_dir / "metrics.jsonl"):
        if metrics.key.phase in TRAINING:
            is_fresh = metrics.key.step == 0
            assert (value_of(metrics, "mismatch/ratio") is not None) == is_fresh
            assert (value_of(metrics, "staleness/ess") is None) == is_fresh
            assert is_fresh or (value_of(metrics, "staleness/mean_abs_delta") or 0) > 1e-4


def check_that_damage_is_refused(killed: Path, arguments: list[str], copy: Path) -> None:
    shutil.copytree(killed, copy / "run")
    entry = json.loads((copy / "run" / "ledger.jsonl").read_text().splitlines()[-1])
    upcoming = copy / "run" / entry["checkpoint"] / UPCOMING
    data = bytearray(upcoming.read_bytes())
    data[100] ^= 1
    upcoming.write_bytes(data)
    assert Attempt(1, [*arguments, f"run.root={copy}"], copy / "log").wait(timeout_s=120) == [1]
    assert f"{UPCOMING} is damaged" in (copy / "log.0").read_text()
