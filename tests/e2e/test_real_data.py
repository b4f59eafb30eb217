"""The released seed questions with a model that knows nothing: the run says so and stops."""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.e2e.attempts import Attempt

ROOT = Path(__file__).resolve().parents[2]
SEEDS = ROOT.parent / "shared" / "data" / "seif_reference" / "seed.parquet"

pytestmark = pytest.mark.skipif(not SEEDS.is_file(), reason=f"the released seed questions are not at {SEEDS}")


@pytest.fixture(scope="module")
def byte_level_model() -> Path:
    """A randomly initialised Qwen2-layout Hugging Face directory with a byte-level tokenizer."""
    out = ROOT / ".cache" / "byte-level-for-tests"
    tool = str(ROOT / "tools" / "make_tiny_model.py")
    subprocess.run([sys.executable, tool, "--out", str(out), "--byte-level"], check=True, timeout=300)
    return out


def test_nonsense_ends_at_the_gate_with_counts_and_an_exit_code(byte_level_model: Path, tmp_path: Path) -> None:
    attempt = Attempt(
        2,
        [
            "parallel.tensor=2",
            "model.dtype=float32",
            "model.max_sequence_length=9000",
            f"model.path={byte_level_model}",
            f"data.seeds={SEEDS}",
            "data.max_seeds=96",
            "data.max_probe_seeds=8",
            "generation.max_new_tokens=16",
            "generation.max_batch_rows=16",
            "reward.judge_max_new_tokens=16",
            "algorithm.instructor.max_steps=1",
            "algorithm.instructor.prompts_per_step=4",
            "evolution.synthesis_batch=64",
            f"run.root={tmp_path}",
            "run.name=real",
        ],
        tmp_path / "log",
    )
    codes = attempt.wait(timeout_s=400)
    log = (tmp_path / "log.0").read_text()
    assert codes == [3, 3], log
    rejected = pq.read_table(tmp_path / "real" / "rounds" / "01" / "rejected.parquet").to_pylist()
    reasons = {row["reason"] for row in rejected}
    asked = len(rejected)
    assert f"gate kept 0 of {asked} (" in log
    assert asked == 96 and reasons <= {"unfinished", "unparsable"}
    assert all(reason in log.split("gate kept 0")[1] for reason in reasons)
    assert pq.read_table(tmp_path / "real" / "rounds" / "01" / "q.parquet").num_rows == 0
    assert "Traceback" not in log
