import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

import pytest

from tests.slurm.cluster import LOCAL_SLURM, NAMESPACES, SYSTEM_PATH, Cluster, missing_here


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    reason = missing_here()
    if reason is not None:
        pytest.skip(reason)
    # Not pytest's folder: only its owner may enter that, and munge's socket must be open to all.
    folder = pathlib.Path(tempfile.gettempdir()) / f"seif_slurm_{os.getpid()}"
    environment = {**os.environ, "PATH": SYSTEM_PATH, "LOCAL_SLURM_DIR": str(folder)}
    command = [*NAMESPACES, "bash", LOCAL_SLURM, "run", "bash", "-c", "echo ready; read -r _"]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n", _logs(folder)
        first = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
        yield Cluster(folder=folder, pid=int(first))
        process.stdin.close()
        process.wait(timeout=60)
        assert not folder.exists()  # `down` removed what `up` made
    finally:
        process.kill()  # and with it every process of the namespaces
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _logs(folder: pathlib.Path) -> str:
    return "\n".join(f"--- {path.name}\n{path.read_text()[-2000:]}" for path in sorted(folder.glob("logs/*")))
