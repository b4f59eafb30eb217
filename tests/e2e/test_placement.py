"""Where weights are kept and in which layout the model speaks changes no run: little host memory, generation at TP2."""

import json
from pathlib import Path

import pytest

from tests.e2e.attempts import Attempt, outcome, parquet_bytes
from tests.e2e.test_lora import overrides


def run(tiny_model: Path, root: Path, *changes: str) -> Path:
    """One short round on two data-parallel ranks, with whole roles."""
    root.mkdir()
    attempt = Attempt(2, [*overrides(tiny_model, root), "experiment=quickstart", *changes], root / "log")
    codes = attempt.wait(timeout_s=300)
    assert codes == [0, 0], (root / "log.0").read_text() + (root / "log.1").read_text()
    return root / "run"


@pytest.fixture(scope="module")
def plain(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tiny_model, tmp_path_factory.mktemp("placement") / "plain")


def test_residents_on_disk_make_the_same_run(tiny_model: Path, tmp_path: Path, plain: Path) -> None:
    """1.4 MB of weights, 1.4 MB of moments on each rank: two of each are in memory, of five and two."""
    spill = tmp_path / "spill"
    spill.mkdir()
    other = run(tiny_model, tmp_path / "other", "roles.host_memory_gib=0.0056", f"roles.spill_dir={spill}")
    assert outcome(other) == outcome(plain)
    assert parquet_bytes(other) == parquet_bytes(plain)
    assert list(spill.iterdir()) == []


def test_too_little_host_memory_and_no_place_for_the_rest_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    for name, value, message in (
        ("less", "roles.host_memory_gib=0.001", "roles.host_memory_gib=0.001 has no room for two residents"),
        ("nowhere", "roles.spill_dir=/nowhere", "roles.spill_dir=/nowhere is no directory on this node"),
    ):
        settings = ["roles.host_memory_gib=1", f"roles.spill_dir={tmp_path}", value]
        attempt = Attempt(1, [*overrides(tiny_model, tmp_path), "experiment=quickstart", *settings], tmp_path / name)
        assert attempt.wait(timeout_s=120) == [2]
        assert message in (tmp_path / f"{name}.0").read_text().splitlines()[-1]


def test_generation_in_a_layout_of_its_own(tiny_model: Path, tmp_path: Path) -> None:
    root = run(tiny_model, tmp_path / "tp2", "generation.tensor=2")
    rows = [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]
    found = [value for row in rows for name, value in row["values"].items() if name == "mismatch/ratio"]
    assert found and max(found) < 1.0001
    assert (root / "export" / "follower-01" / "model.safetensors").exists()
