import math

import pytest
from bench import ablation
from bench.ablation import Bench, Estimate, Result, Run

from seif_nemo.evolution.ledger import Ledger
from seif_nemo.observability.metrics import MetricsWriter
from seif_nemo.types.records import Phase, StepMetrics, UnitKey


def _result(arm, seed, first, last, *, ended="finished", kept=0.5):
    unknown = [None, None]
    return Result(
        arm=arm,
        seed=seed,
        ended=ended,
        follow_rate=[first, last],
        strict_rate=unknown,
        difficulty_before=unknown,
        difficulty_after=unknown,
        solvable_share=unknown,
        distinct_template_share=unknown,
        common_share=unknown,
        kept_share=[None, kept],
        conflict_share=unknown,
        follower_steps=[0.0, 2.0],
    )


def test_mean_and_standard_error():
    found = ablation.estimate([1.0, 2.0, 6.0])
    assert found is not None and found.error is not None
    assert (found.mean, found.num_seeds) == (3.0, 3)
    assert found.error == pytest.approx(math.sqrt((4 + 1 + 9) / 2 / 3))
    assert ablation.estimate([2.0]) == Estimate(2.0, None, 1)
    assert ablation.estimate([]) is None


def test_differences_are_of_pairs():
    ours = [_result("band", 1, 0.4, 0.7), _result("band", 2, 0.5, 0.9), _result("band", 3, 0.5, 1.0)]
    theirs = [_result("paper", 2, 0.5, 0.6), _result("paper", 1, 0.4, 0.6), _result("paper", 4, 0.0, 0.0)]
    found = ablation.paired_difference(ours, theirs, lambda r: r.gain)
    assert found is not None and found.error is not None
    assert found.mean == pytest.approx((0.1 + 0.3) / 2)
    assert found.error == pytest.approx(0.1)  # deviations of ∓0.1: sqrt(0.02 / 1 / 2)
    assert found.num_seeds == 2


def test_the_table_compares_what_is_finished_and_names_the_rest():
    results = [
        _result("paper", 0, 0.4, 0.6),
        _result("paper", 1, 0.5, 0.6),
        _result("band", 0, 0.4, 0.7, kept=None),
        _result("band", 1, 0.5, None, ended="exit code 3, see band-seed1.log"),
    ]
    text = ablation.table(results, rounds=1)
    arms, differences = (
        [line.split(" | ")[:5] for line in part.splitlines() if line.startswith("| ")] for part in text.split("Paired")
    )
    assert arms == [
        ["| arm", "seeds", "round 0", "round 1", "gain"],
        ["| paper", "2", "0.450 ± 0.050", "0.600 ± 0.000", "0.150 ± 0.050"],
        ["| band", "1", "0.400", "0.700", "0.300"],
    ]
    assert differences[1] == ["| band", "1", "0.000", "0.100", "0.100"]
    assert text.endswith("\n- band, seed 1: exit code 3, see band-seed1.log\n")


@pytest.fixture
def run(tmp_path):
    """A run whose first round is finished."""
    run = Run("band", 7, tmp_path / "band-seed7", tmp_path / "tiny-7")
    run.directory.mkdir()
    ledger = Ledger(run.directory / "ledger.jsonl", attempt=1, writable=True)
    values = {
        UnitKey(0, Phase.EVALUATION, 0): {"eval/follow_rate": 0.4},
        UnitKey(1, Phase.PROBE_AFTER, 0): {"probe/difficulty": 0.3, "probe/solvable_share": 0.9},
        UnitKey(1, Phase.SYNTHESIS, 0): {"synthesis/kept": 30.0, "synthesis/asked": 40.0},
        UnitKey(1, Phase.FOLLOWER, 0): {},
        UnitKey(1, Phase.FOLLOWER, 1): {},
        UnitKey(1, Phase.EVALUATION, 0): {"eval/follow_rate": 0.6, "eval/strict_rate": 0.2},
    }
    with MetricsWriter(run.directory / "metrics.jsonl") as writer:
        for key, of_unit in values.items():
            writer.write(StepMetrics(key, 0.0, of_unit))
            ledger.append(key, digests={})
    return run


def test_a_result_is_what_the_run_directory_says(run):
    result = ablation.read_result(run, rounds=1, ended="finished")
    assert result.follow_rate == [0.4, 0.6]
    assert result.gain == pytest.approx(0.2)
    assert (result.strict_rate, result.kept_share) == ([None, 0.2], [None, 0.75])
    assert (result.difficulty_after, result.solvable_share) == ([None, 0.3], [None, 0.9])
    assert result.follower_steps == [0.0, 2.0]
    assert ablation.read_result(run, rounds=2, ended="stopped").gain is None


def test_finished_runs_are_skipped(run, monkeypatch, tmp_path):
    monkeypatch.setattr(ablation.subprocess, "Popen", lambda *_, **__: pytest.fail("started a finished run"))
    assert ablation.is_finished(run, rounds=1)
    assert not ablation.is_finished(run, rounds=2)
    bench = Bench([run], out=tmp_path, rounds=1, overrides=["run.seed=9"])
    assert bench.run_all(jobs=1)
    assert "| band | 1 | 0.400 | 0.600 | 0.200 |" in (tmp_path / "ablation.md").read_text()
    assert bench.arguments(run)[-1] == "run.seed=9"
