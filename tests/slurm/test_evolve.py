"""`sbatch slurm/round.sh` on two nodes makes exactly what torchrun makes on one machine."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.e2e.attempts import outcome, parquet_bytes
from tests.e2e.conftest import tiny_model  # noqa: F401  a fixture
from tests.slurm.cluster import ROOT, Cluster

pytestmark = pytest.mark.slurm

RANKS = 4


def overrides(model: pathlib.Path, root: pathlib.Path) -> list[str]:
    """Three short rounds with every phase in them, tensor-parallel inside a node, data-parallel between the two."""
    return [
        "experiment=quickstart",
        f"run.root={root}",
        "run.name=run",
        "parallel.tensor=2",
        f"model.path={model}",
        f"data.seeds={model}/data/probe_seeds.parquet",
        f"data.probe_seeds={model}/data/probe_seeds.parquet",
        f"data.heldout={model}/data/heldout.parquet",
        "data.max_probe_seeds=16",
        "data.max_heldout_prompts=16",
        "evolution.rounds=3",
        "evolution.evaluation_samples=1",
        "evolution.synthesis_batch=120",
        "evolution.min_kept_share=0.01",
        "algorithm.instructor.max_steps=1",
        "algorithm.instructor.prompts_per_step=8",
        "algorithm.follower.max_steps=2",
        "algorithm.follower.prompts_per_step=8",
    ]


def test_sbatch_gives_what_torchrun_gives(cluster: Cluster, tiny_model: pathlib.Path, tmp_path: pathlib.Path) -> None:  # noqa: F811
    log = tmp_path / "log"
    on_slurm, here = tmp_path / "slurm", tmp_path / "torchrun"
    number = cluster.submit(
        "--nodes=2", "--ntasks-per-node=2", ROOT / "slurm/round.sh", *overrides(tiny_model, on_slurm), log=log,
        SEIF_VENV=sys.prefix,
    )  # fmt: skip
    job = cluster.wait(number, log, timeout_s=420)
    assert (job.state, job.nodes) == ("COMPLETED", "node[1-2]"), job.log
    rendezvous = ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={RANKS}", *rendezvous]
    command = [*torchrun, "-m", "seif_nemo", "evolve", *overrides(tiny_model, here)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=420
    )
    assert result.returncode == 0, result.stderr
    assert outcome(on_slurm / "run") == outcome(here / "run")
    # the base model's evaluation; per round two probes, one Instructor step, two of synthesis, two of the Follower, one
    # evaluation
    assert len(outcome(here / "run")) == 1 + 3 * 8
    assert parquet_bytes(on_slurm / "run") == parquet_bytes(here / "run")
    weights = "export/follower-03/model.safetensors"
    assert (on_slurm / "run" / weights).read_bytes() == (here / "run" / weights).read_bytes()
