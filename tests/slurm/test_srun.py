"""The srun wrapper and round.sh on a real Slurm of two nodes."""

import json
import pathlib
import sys
import textwrap
import time

import pytest

from tests.slurm.cluster import ROOT, Cluster, read_reports

pytestmark = pytest.mark.slurm

BATCH = textwrap.dedent("""\
    #!/usr/bin/env bash
    set -euo pipefail
    source "$SEIF_ROOT/slurm/env.sh"
    source "$SEIF_ROOT/slurm/lib.sh"
    seif_srun "$@"
    """)
FAKE_PYTHON = textwrap.dedent("""\
    #!/usr/bin/env bash
    # Stands where the environment's Python is: writes down how it was called. Rank FAILING_RANK then fails.
    "$REAL_PYTHON" -c '
    import json, os, sys
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GLOO_SOCKET_IFNAME", "OMP_NUM_THREADS")
    json.dump({"arguments": sys.argv[1:], "cwd": os.getcwd(), **{name: os.environ.get(name) for name in names}},
              open(os.path.join(os.environ["REPORTS"], os.environ["RANK"] + ".json"), "w"))' "$@"
    [[ $RANK != "${FAILING_RANK:-none}" ]] || exit 7
    [[ -z ${FAILING_RANK:-} ]] || sleep 100
    """)


@pytest.fixture
def batch(tmp_path: pathlib.Path) -> pathlib.Path:
    script = tmp_path / "batch.sh"
    script.write_text(BATCH)
    return script


@pytest.fixture
def fake_python(tmp_path: pathlib.Path) -> pathlib.Path:
    """A virtual environment whose Python only reports."""
    program = tmp_path / "fake venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text(FAKE_PYTHON)
    program.chmod(0o755)
    return program.parents[1]


def test_four_ranks_on_two_nodes_reduce_over_gloo(
    cluster: Cluster, batch: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    log = tmp_path / "log"
    options = ("--nodes=2", "--ntasks-per-node=2")
    number = cluster.submit(
        *options,
        batch,
        sys.executable,
        ROOT / "tests/slurm/gloo_check.py",
        tmp_path,
        "sum",
        log=log,
        SEIF_ROOT=str(ROOT),
    )
    job = cluster.wait(number, log, timeout_s=60)
    assert (job.state, job.exit_code, job.signal) == ("COMPLETED", 0, 0), job.log
    common = {"world": 4, "sum": 1111.0, "master": "10.77.0.11", "port": 15000 + number}
    assert read_reports(tmp_path) == [
        {"rank": rank, "local_rank": rank % 2, "node": f"node{rank // 2 + 1}", **common} for rank in range(4)
    ]


def test_round_passes_overrides_through(cluster: Cluster, fake_python: pathlib.Path, tmp_path: pathlib.Path) -> None:
    log = tmp_path / "log"
    overrides = ("experiment=quickstart", "run.name=two words", "a={b: [1, 'x']}", "c=$HOME;*")
    number = cluster.submit(
        "--nodes=2", ROOT / "slurm/round.sh", *overrides, log=log, SEIF_VENV=str(fake_python), SEIF_INTERFACE="eth0",
        REPORTS=str(tmp_path), REAL_PYTHON=sys.executable,
    )  # fmt: skip
    job = cluster.wait(number, log, timeout_s=30)
    assert (job.state, job.nodes) == ("COMPLETED", "node[1-2]"), job.log
    common = {"cwd": str(ROOT), "WORLD_SIZE": "4", "GLOO_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": "1"}
    assert read_reports(tmp_path) == [
        {
            "arguments": ["-m", "seif_nemo", "evolve", *overrides],
            "RANK": str(rank),
            "LOCAL_RANK": str(rank % 2),
            **common,
        }
        for rank in range(4)
    ]


def test_a_failing_rank_fails_the_job_at_once(
    cluster: Cluster, fake_python: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Submitted from another folder, so that round.sh has to find its checkout."""
    log = tmp_path / "log"
    began = time.monotonic()
    number = cluster.submit(
        "--nodes=2", ROOT / "slurm/round.sh", "x=1", log=log, cwd=tmp_path, SEIF_VENV=str(fake_python),
        FAILING_RANK="3", REPORTS=str(tmp_path), REAL_PYTHON=sys.executable,
    )  # fmt: skip
    job = cluster.wait(number, log, timeout_s=60)
    assert job.state == "FAILED", job.log
    assert job.exit_code != 0 or job.signal != 0
    assert time.monotonic() - began < 50  # the other ranks would have slept for 100 s
    assert json.loads((tmp_path / "3.json").read_text())["cwd"] == str(ROOT)


def test_round_without_an_environment_says_what_to_do(cluster: Cluster, tmp_path: pathlib.Path) -> None:
    log = tmp_path / "log"
    number = cluster.submit(ROOT / "slurm/round.sh", log=log, SEIF_VENV=str(tmp_path / "absent"))
    job = cluster.wait(number, log, timeout_s=30)
    assert (job.state, job.exit_code) == ("FAILED", 1)
    assert "Run tools/install.sh first" in job.log


def reachable(cluster: Cluster) -> bool:
    """Whether the login node can open a connection to node 2's slurmd."""
    return cluster.run("timeout", "1", "bash", "-c", ": </dev/tcp/10.77.0.12/17002").returncode == 0


def becomes_reachable(cluster: Cluster, *, timeout_s: float = 20.0) -> bool:
    """Waits: the kernel asks again for the address of a neighbour that did not answer only after a second or more."""
    deadline = time.monotonic() + timeout_s
    while not reachable(cluster):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def test_nodes_can_be_cut_off_and_crashed(cluster: Cluster) -> None:
    def local_slurm(*arguments: str) -> None:
        result = cluster.run("bash", ROOT / "tools/local_slurm.sh", *arguments)
        assert result.returncode == 0, result.stderr

    assert reachable(cluster)
    local_slurm("cut", "2")
    assert not reachable(cluster)
    assert cluster.run("pgrep", "-f", "^slurmd .*node2").returncode == 0  # cut off, but alive
    local_slurm("uncut", "2")
    assert becomes_reachable(cluster)
    local_slurm("crash", "2")
    assert cluster.run("pgrep", "-f", "^slurmd .*node2").returncode == 1
    assert not reachable(cluster)
    local_slurm("start", "2")
    result = cluster.run("srun", "--nodelist=node2", "--immediate=60", "hostname")
    assert result.stdout == "node2\n", result.stderr
