"""Roles as adapters on one base: a round, killed once, ends as it does undisturbed, and what it gives out fits."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from seif_nemo.weights.role_digest import digest_of_hf
from tests.e2e.attempts import Attempt, outcome


def overrides(tiny_model: Path, root: Path) -> list[str]:
    return [
        "experiment=tiny_lora",
        f"run.root={root}",
        "run.name=run",
        f"model.path={tiny_model}",
        f"data.seeds={tiny_model}/data/probe_seeds.parquet",
        f"data.probe_seeds={tiny_model}/data/probe_seeds.parquet",
        f"data.heldout={tiny_model}/data/heldout.parquet",
        "data.max_probe_seeds=8",
        "data.max_heldout_prompts=8",
        "evolution.rounds=1",
        "evolution.evaluation_samples=1",
        "evolution.synthesis_batch=240",
        "evolution.min_kept_share=0.01",
        "algorithm.instructor.max_steps=2",
        "algorithm.instructor.prompts_per_step=16",
        "algorithm.instructor.group_size=2",
        "algorithm.follower.max_steps=2",
        "algorithm.follower.prompts_per_step=8",
        "algorithm.follower.group_size=4",
    ]


def run(tiny_model: Path, root: Path, name: str) -> Path:
    attempt = Attempt(1, overrides(tiny_model, root), root / name)
    assert attempt.wait(timeout_s=300) == [0], (root / f"{name}.0").read_text()
    return root / "run"


def test_a_round_of_adapters(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "disturbed").mkdir()
    undisturbed = run(tiny_model, tmp_path, "log")
    disturbed = tmp_path / "disturbed" / "run"
    metrics, wanted = disturbed / "metrics.jsonl", b'"phase": "follower", "step": 0'
    attempt = Attempt(1, overrides(tiny_model, tmp_path / "disturbed"), tmp_path / "disturbed" / "log-killed")
    assert attempt.wait_until(lambda: metrics.exists() and wanted in metrics.read_bytes(), timeout_s=300)
    attempt.kill()
    run(tiny_model, tmp_path / "disturbed", "log")
    assert outcome(disturbed) == outcome(undisturbed)
    check_exports(tiny_model, undisturbed / "export")
    manifests = [json.loads(path.read_text())["manifest"] for path in undisturbed.rglob("manifest.json")]
    assert {manifest["role"] for manifest in manifests} == {"instructor", "follower"}
    assert {manifest["base_digest"] for manifest in manifests} == {digest_of_hf(tiny_model, torch.float32)}


def check_exports(tiny_model: Path, exports: Path) -> None:
    """The merged weights are the base's and the adapter's, and the adapter has learnt."""
    base, merged = (load_file(path / "model.safetensors") for path in (tiny_model, exports / "follower-01"))
    adapter = load_file(exports / "follower-01-adapter" / "adapter_model.safetensors")
    config = json.loads((exports / "follower-01-adapter" / "adapter_config.json").read_text())
    changed = 0
    for name, weight in base.items():
        key = "base_model.model." + name.removesuffix(".weight")
        if f"{key}.lora_A.weight" not in adapter:
            assert torch.equal(merged[name], weight), name
            continue
        a, b = (adapter[f"{key}.lora_{half}.weight"] for half in "AB")
        delta = config["lora_alpha"] / config["r"] * (b @ a)
        assert delta.abs().max() > 1e-4, name
        torch.testing.assert_close(merged[name], weight + delta, rtol=1e-6, atol=1e-7)
        changed += 1
    assert changed == len(adapter) // 2 > 0
