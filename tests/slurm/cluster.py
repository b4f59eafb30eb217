"""A real Slurm of two nodes for the tests: tools/local_slurm.sh in namespaces that take everything along."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import time
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOCAL_SLURM = ROOT / "tools" / "local_slurm.sh"
NAMESPACES = ("unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")
SYSTEM_PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
UNFINISHED = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED"}


def missing_here() -> str | None:
    """Why this machine cannot run a local Slurm, or None."""
    if os.geteuid() != 0:
        return "a local Slurm needs root"
    absent = [name for name in ("slurmctld", "slurmd", "munged", "ip") if shutil.which(name, path=SYSTEM_PATH) is None]
    if absent:
        return f"a local Slurm needs {', '.join(absent)} (apt-get install slurm-wlm munge iproute2)"
    probe = [*NAMESPACES, "ip", "link", "add", "probe0", "type", "bridge"]
    result = subprocess.run(probe, capture_output=True, text=True, check=False, env={**os.environ, "PATH": SYSTEM_PATH})
    return None if result.returncode == 0 else f"no namespaces or bridges here: {result.stderr.strip()}"


@dataclass(frozen=True, slots=True)
class Job:
    """What became of a job: Slurm's final state, exit code and signal of the batch script, nodes, what it printed."""

    number: int
    state: str
    exit_code: int
    signal: int
    nodes: str
    log: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster: `folder` holds its configuration and logs, `pid` is the first process of its namespaces."""

    folder: pathlib.Path
    pid: int

    def run(
        self, *command: str | pathlib.Path, cwd: pathlib.Path = ROOT, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command as on the login node: in the cluster's namespaces, with its configuration."""
        environment = {**os.environ, "PATH": SYSTEM_PATH, "SLURM_CONF": str(self.folder / "slurm.conf"), **variables}
        environment["LOCAL_SLURM_DIR"] = str(self.folder)
        enter = ["nsenter", f"--target={self.pid}", "--net", "--mount", "--pid", f"--wd={cwd}", "--"]
        return subprocess.run(
            [*enter, *map(str, command)], env=environment, capture_output=True, text=True, check=False, timeout=120
        )

    def submit(
        self, *arguments: str | pathlib.Path, log: pathlib.Path, cwd: pathlib.Path = ROOT, **variables: str
    ) -> int:
        """sbatch with these arguments (options, script, its arguments); returns the job's number."""
        result = self.run("sbatch", "--parsable", f"--output={log}", *arguments, cwd=cwd, **variables)
        assert result.returncode == 0, result.stderr
        return int(result.stdout)

    def wait(self, number: int, log: pathlib.Path, *, timeout_s: float) -> Job:
        """Polls until the job has ended; an AssertionError with its log when it does not within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while True:
            fields = self.run("scontrol", "show", "job", str(number)).stdout
            state = _field(fields, "JobState")
            if state not in UNFINISHED:
                break
            assert time.monotonic() < deadline, f"job {number} is {state} after {timeout_s} s:\n{fields}\n{_text(log)}"
            time.sleep(0.2)
        code, signal = _field(fields, "ExitCode").split(":")
        return Job(number, state, int(code), int(signal), _field(fields, "NodeList"), _text(log))


def _field(text: str, key: str) -> str:
    match = re.search(rf"(?:^|\s){key}=(\S*)", text)
    assert match is not None, f"{key} not in: {text}"
    return match.group(1)


def _text(log: pathlib.Path) -> str:
    return log.read_text() if log.exists() else "(no output)"


def read_reports(folder: pathlib.Path) -> list[dict[str, object]]:
    """The JSON files that the tasks of a job wrote, by file name."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
