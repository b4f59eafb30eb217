"""The bash of the cluster path where no Slurm is needed: stand-ins for srun and scontrol record how they are called."""

import os
import pathlib
import subprocess

import pytest

from tests.slurm.cluster import LOCAL_SLURM, NAMESPACES, ROOT, SYSTEM_PATH, missing_here

SRUN = """#!/usr/bin/env bash
printf '%s\\n' "$@" "MASTER_ADDR=$MASTER_ADDR" "MASTER_PORT=$MASTER_PORT"
exit 9
"""
SCONTROL = """#!/usr/bin/env bash
case "$*" in
  "show hostnames gpu[07-08]") printf 'gpu07\\ngpu08\\n' ;;
  "show node --oneliner gpu07") echo "NodeName=gpu07 Arch=x86_64 NodeAddr=192.0.2.7 NodeHostName=gpu07 Version=22.05" ;;
  *) exit 1 ;;
esac
"""


@pytest.fixture
def stand_ins(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "id": "#!/bin/sh\necho 1000\n"}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def bash(folder: pathlib.Path, *command: str | pathlib.Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", **variables}
    return subprocess.run(["bash", *command], env=environment, capture_output=True, text=True, check=False)


def test_round_in_a_container(stand_ins: pathlib.Path) -> None:
    result = bash(
        stand_ins, ROOT / "slurm/round.sh", "experiment=x", SLURM_JOB_ID="40017", SLURM_JOB_NODELIST="gpu[07-08]",
        SLURM_CPUS_PER_TASK="14", SEIF_CONTAINER="/images/seif.sqsh", SEIF_CONTAINER_MOUNTS="/lustre:/lustre",
    )  # fmt: skip
    assert result.returncode == 9, result.stderr
    lines = result.stdout.splitlines()
    assert lines[:6] == [
        "--kill-on-bad-exit=1",
        "--export=ALL",
        "--cpus-per-task=14",
        "--container-image=/images/seif.sqsh",
        "--container-mounts=/lustre:/lustre",
        f"--container-workdir={ROOT}",
    ]
    assert lines[-6:] == [
        "-m",
        "seif_nemo",
        "evolve",
        "experiment=x",
        "MASTER_ADDR=192.0.2.7",
        f"MASTER_PORT={15000 + 10017}",
    ]
    assert lines[-7] == "python"  # the image's own


def test_round_outside_a_job_says_how_to_submit(stand_ins: pathlib.Path) -> None:
    result = bash(stand_ins, ROOT / "slurm/round.sh", SLURM_JOB_ID="")
    assert result.returncode == 2
    assert "sbatch slurm/round.sh" in result.stderr


def test_unknown_nodes_fail(stand_ins: pathlib.Path) -> None:
    result = bash(
        stand_ins, ROOT / "slurm/round.sh", SLURM_JOB_ID="1", SLURM_JOB_NODELIST="other1", SEIF_CONTAINER="image"
    )  # fmt: skip
    assert result.returncode == 1
    assert "does not know the nodes other1" in result.stderr


@pytest.mark.parametrize(
    "visible, local_rank",
    [("", "3"), ("0,1,2,3", "3"), ("2", "0"), ("GPU-5ebe9f43", "0")],
    ids=["none", "all", "own", "uuid"],
)
def test_local_rank_counts_among_visible_devices(stand_ins: pathlib.Path, visible: str, local_rank: str) -> None:
    code = 'source "$0"; seif_task printenv LOCAL_RANK RANK WORLD_SIZE'
    result = bash(
        stand_ins, "-c", code, ROOT / "slurm/lib.sh", SLURM_PROCID="11", SLURM_NTASKS="16", SLURM_LOCALID="3",
        CUDA_VISIBLE_DEVICES=visible,
    )  # fmt: skip
    assert result.stdout.split() == [local_rank, "11", "16"], result.stderr


def test_local_slurm_needs_root(stand_ins: pathlib.Path) -> None:
    result = bash(stand_ins, LOCAL_SLURM, "up")
    assert result.returncode == 1
    assert "needs root" in result.stderr


def test_a_daemon_that_ended_before_it_was_looked_at_is_not_running(
    stand_ins: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "pids").mkdir()
    (tmp_path / "pids" / "slurmctld").write_text("4194305 \n")  # no process has this number; it left no start time
    result = bash(stand_ins, LOCAL_SLURM, "start", "1", LOCAL_SLURM_DIR=str(tmp_path))
    assert result.returncode == 1
    assert f"no cluster is up in {tmp_path}" in result.stderr


@pytest.mark.slurm
@pytest.mark.parametrize("verb", ["up", "run", "down"])
def test_local_slurm_touches_no_folder_of_others(verb: str, tmp_path: pathlib.Path) -> None:
    reason = missing_here()
    if reason is not None:
        pytest.skip(reason)
    (tmp_path / "precious").touch()
    environment = {**os.environ, "PATH": SYSTEM_PATH, "LOCAL_SLURM_DIR": str(tmp_path)}
    command = ["bash", LOCAL_SLURM, verb, "true"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stderr
    assert str(tmp_path) in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.slurm
def test_a_start_that_fails_leaves_nothing_behind(stand_ins: pathlib.Path) -> None:
    reason = missing_here()
    if reason is not None:
        pytest.skip(reason)
    folder = pathlib.Path(f"/tmp/seif_slurm_{os.getpid()}_failed")
    (stand_ins / "id").write_text("#!/bin/sh\necho 0\n")
    (stand_ins / "scontrol").unlink()
    (stand_ins / "slurmctld").write_text("#!/bin/sh\nexit 1\n")
    (stand_ins / "slurmctld").chmod(0o755)
    script = '"$0" up; echo "rc $?"; ls -d "$LOCAL_SLURM_DIR"; ip -o link | wc -l'
    command = [*NAMESPACES, "bash", "-c", script, LOCAL_SLURM]
    environment = {**os.environ, "PATH": f"{stand_ins}{os.pathsep}{SYSTEM_PATH}", "LOCAL_SLURM_DIR": str(folder)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert "slurmctld did not start" in result.stderr
    assert result.stdout.split() == ["rc", "1", "1"], result.stderr


@pytest.mark.slurm
def test_local_slurm_leaves_nothing_behind() -> None:
    reason = missing_here()
    if reason is not None:
        pytest.skip(reason)
    folder = pathlib.Path(f"/tmp/seif_slurm_{os.getpid()}_trace")
    script = """
        "$0" run srun --nodes=2 --ntasks=2 hostname
        echo "rc $?"
        pgrep -c "slurm|munge"
        ls -d "$LOCAL_SLURM_DIR"
        ip -o link
    """
    environment = {**os.environ, "PATH": SYSTEM_PATH, "LOCAL_SLURM_DIR": str(folder)}
    result = subprocess.run(
        [*NAMESPACES, "bash", "-c", script, LOCAL_SLURM],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    lines = result.stdout.splitlines()
    assert sorted(lines[:2]) == ["node1", "node2"], result.stderr
    assert lines[2:4] == ["rc 0", "0"]  # no daemon is left, and no folder is listed
    assert len(lines) == 5
    assert lines[4].startswith("1: lo:")
