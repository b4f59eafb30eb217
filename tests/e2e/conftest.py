"""The tiny base model of the end-to-end tests, trained once and kept in .cache."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WARMUP_STEPS = 300  # enough for an Instructor that mostly parses


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """A Hugging Face directory with data/seeds.parquet, data/probe_seeds.parquet and data/heldout.parquet beside it."""
    out = ROOT / ".cache" / "tiny-for-tests"
    subprocess.run(
        [sys.executable, str(ROOT / "tools" / "make_tiny_model.py"), "--out", str(out), "--steps", str(WARMUP_STEPS)],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"},
        stdout=subprocess.DEVNULL,
        timeout=600,
    )
    return out
