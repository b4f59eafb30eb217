"""PPO with an adaptive KL coefficient: role and critic, killed again and again, end as they do undisturbed."""

import json
from pathlib import Path

import pytest

from seif_nemo.observability.metrics import read_metrics
from seif_nemo.types.records import Phase
from tests.e2e.attempts import Attempt, num_ledger_lines, outcome


def overrides(tiny_model: Path, root: Path) -> list[str]:
    """Two short rounds; a checkpoint after every second step."""
    return [
        "experiment=tiny_ppo",
        f"run.root={root}",
        "run.name=run",
        f"model.path={tiny_model}",
        f"data.seeds={tiny_model}/data/probe_seeds.parquet",
        f"data.probe_seeds={tiny_model}/data/probe_seeds.parquet",
        f"data.heldout={tiny_model}/data/heldout.parquet",
        "data.max_probe_seeds=8",
        "data.max_heldout_prompts=8",
        "evolution.rounds=2",
        "evolution.evaluation_samples=1",
        "evolution.synthesis_batch=240",
        "evolution.min_kept_share=0.01",
        "checkpoint.every_steps=2",
        "checkpoint.keep=1",
        "algorithm.critic.warmup_steps=1",
        "algorithm.adaptive_kl.target=0.01",
        "algorithm.adaptive_kl.horizon=60",
        "algorithm.instructor.max_steps=4",
        "algorithm.instructor.prompts_per_step=24",
        "algorithm.instructor.group_size=1",
        "algorithm.follower.max_steps=4",
        "algorithm.follower.prompts_per_step=8",
        "algorithm.follower.group_size=2",
    ]


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    assert Attempt(1, overrides(tiny_model, root), root / "log").wait(timeout_s=300) == [0], (
        root / "log.0"
    ).read_text()
    return root / "run"


def learned(run_dir: Path) -> dict[str, dict[str, float]]:
    """What each training step measured of critic and policy."""
    return {
        str(metrics.key): {
            name: value
            for name, value in metrics.values.items()
            if name.startswith(("critic/", "train/")) and "_per_s" not in name
        }
        for metrics in read_metrics(run_dir / "metrics.jsonl")
        if metrics.key.phase in (Phase.INSTRUCTOR, Phase.FOLLOWER)
    }


def test_critic_and_policy_are_one_commit(undisturbed: Path) -> None:
    entries = [json.loads(line) for line in (undisturbed / "ledger.jsonl").read_text().splitlines()]
    for role in ("instructor", "follower"):
        own = [entry for entry in entries if entry["key"]["phase"] == role]
        assert [entry["key"]["step"] for entry in own] == [1, 3, 1, 3]
        assert all(entry["digests"].keys() == {role, f"{role}_critic"} for entry in own)
        for name in (role, f"{role}_critic"):
            assert len({entry["digests"][name] for entry in own}) == 4, f"{name} did not move"
        path = undisturbed / "rounds" / "02" / role
        kept = sorted(str(found.relative_to(path).parent) for found in path.rglob("manifest.json"))
        assert kept == ["critic/step-0003", "step-0003"]
    steps = list(learned(undisturbed).values())
    assert len(steps) == 16
    assert [("train/loss" in values) for values in steps[:4]] == [False, True, True, True]  # the policy waits
    assert all(values["critic/num_updates"] > 0 for values in steps)
    coefficients = [values["train/kl_coefficient"] for values in steps]
    assert coefficients[0] == coefficients[1] == 0.05
    assert len(set(coefficients)) > 8


def test_kills_change_nothing(tiny_model: Path, undisturbed: Path, tmp_path: Path) -> None:
    run_dir, arguments = tmp_path / "run", overrides(tiny_model, tmp_path)
    metrics = run_dir / "metrics.jsonl"
    for number, (phase, round) in enumerate([("instructor", 1), ("follower", 2)]):
        # Step 2 is measured and not saved yet.
        wanted = f'"round": {round}, "phase": "{phase}", "step": 2'.encode()
        attempt = Attempt(1, arguments, tmp_path / f"log-{number}")
        reached = attempt.wait_until(
            lambda wanted=wanted: metrics.exists() and wanted in metrics.read_bytes(), timeout_s=180
        )
        assert reached, (tmp_path / f"log-{number}.0").read_text()
        attempt.kill()
    assert num_ledger_lines(run_dir) < num_ledger_lines(undisturbed)
    attempt = Attempt(1, arguments, tmp_path / "log-last")
    assert attempt.wait(timeout_s=300) == [0], (tmp_path / "log-last.0").read_text()
    assert outcome(run_dir) == outcome(undisturbed)
    assert learned(run_dir) == learned(undisturbed)
