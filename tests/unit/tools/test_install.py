"""tools/install.sh with a stand-in for Python: what it asks pip for, when it does nothing, what it tells the user.

The stand-in runs `-c` programs with the real interpreter without site-packages, makes "environments" that hold a copy
of itself, and writes pip's arguments to a log.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
STAND_IN = textwrap.dedent("""\
    #!/usr/bin/env bash
    case "$1 ${2:-}" in
      "-m venv")
        folder=${!#}
        mkdir -p "$folder/bin" && cp "$0" "$folder/bin/python"
        echo "include-system-site-packages = false" >"$folder/pyvenv.cfg" ;;
      "-m pip")
        printf '%s\\n' "${*:4}" >>"$PIP_LOG"
        if [[ $* == *--report* ]]; then cat "$PIP_PLAN"; else sleep "${PIP_SECONDS:-0}"; fi ;;
      --version*) echo "Python 3.x" ;;
      *) exec "$REAL_PYTHON" -I -S "$@" ;;
    esac
    """)
PROJECT = "install --quiet --editable {}[dev]"


@dataclass(frozen=True, slots=True)
class Checkout:
    """A copy of the installer in a folder with a space, and what its pip was asked for."""

    folder: pathlib.Path
    environment: dict[str, str]

    def start(self, **variables: str) -> subprocess.Popen[str]:
        command = ["bash", self.folder / "tools" / "install.sh"]
        environment = {**self.environment, **variables}
        return subprocess.Popen(
            command, cwd="/", env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def install(self, **variables: str) -> tuple[int, str]:
        """Exit code and messages."""
        process = self.start(**variables)
        _, messages = process.communicate(timeout=60)
        return process.returncode, messages

    def asked(self) -> list[str]:
        log = pathlib.Path(self.environment["PIP_LOG"])
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def checkout(tmp_path: pathlib.Path) -> Checkout:
    folder = tmp_path / "a checkout"
    (folder / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "tools" / "install.sh", folder / "tools")
    (folder / "pyproject.toml").write_text("[project]\n")
    programs = tmp_path / "bin"
    programs.mkdir()
    plan = tmp_path / "plan.json"
    python = programs / "stand-in"
    python.write_text(STAND_IN)
    (programs / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")  # no GPU, whatever the machine has
    for program in programs.iterdir():
        program.chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if key not in ("SEIF_VENV", "TORCH_INDEX_URL")}
    environment |= {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHON": str(python)}
    environment |= {"REAL_PYTHON": sys.executable, "PIP_LOG": str(tmp_path / "pip.log"), "PIP_PLAN": str(plan)}
    write_plan(plan, "torch", "filelock")
    return Checkout(folder, environment)


def write_plan(path: pathlib.Path, *names: str) -> None:
    path.write_text(json.dumps({"install": [{"metadata": {"name": name}} for name in names]}))


def torch_request(checkout: Checkout) -> str:
    """The one request for torch after the plan was looked at; the project's must follow it."""
    *before, torch, project = checkout.asked()
    assert len(before) <= 1
    assert all("--dry-run" in request for request in before)
    assert project == PROJECT.format(checkout.folder)
    return torch


def test_a_registry_with_a_cpu_build_is_taken_as_it_is(checkout: Checkout) -> None:
    code, messages = checkout.install()
    assert code == 0, messages
    assert torch_request(checkout) == "install --quiet torch==2.13.0"


@pytest.mark.parametrize("package", ["nvidia-cublas-cu12", "triton", "cuda-bindings"])
def test_a_registry_that_would_bring_cuda_is_passed_over(checkout: Checkout, package: str) -> None:
    write_plan(pathlib.Path(checkout.environment["PIP_PLAN"]), "torch", package)
    code, messages = checkout.install()
    assert code == 0, messages
    assert torch_request(checkout) == "install --quiet torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"


def test_a_machine_with_a_gpu_gets_the_build_with_cuda(checkout: Checkout) -> None:
    smi = pathlib.Path(checkout.environment["PYTHON"]).with_name("nvidia-smi")
    smi.write_text("#!/bin/sh\nexit 0\n")
    code, messages = checkout.install()
    assert code == 0, messages
    assert torch_request(checkout) == "install --quiet torch>=2.6"


def test_the_user_can_name_the_index(checkout: Checkout) -> None:
    code, messages = checkout.install(TORCH_INDEX_URL="https://mirror.example/cu130")
    assert code == 0, messages
    assert torch_request(checkout) == "install --quiet torch>=2.6 --index-url https://mirror.example/cu130"


def test_a_second_run_does_nothing_until_the_project_changes(checkout: Checkout) -> None:
    assert checkout.install()[0] == 0
    requests = len(checkout.asked())
    assert checkout.install() == (0, "")
    assert len(checkout.asked()) == requests
    (checkout.folder / "pyproject.toml").write_text("[project]\nname = 'changed'\n")
    assert checkout.install()[0] == 0
    assert checkout.asked()[-1] == PROJECT.format(checkout.folder)
    assert len(checkout.asked()) > requests


def test_two_at_once_install_once(checkout: Checkout) -> None:
    both = [checkout.start(PIP_SECONDS="0.5") for _ in range(2)]
    messages = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], messages
    assert sum("waiting for it" in text for text in messages) == 1
    assert checkout.asked().count(PROJECT.format(checkout.folder)) == 1


def test_an_old_python_is_refused_with_a_way_out(checkout: Checkout) -> None:
    old = pathlib.Path(checkout.environment["PYTHON"]).with_name("old")
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" || exit 1\n')
    old.chmod(0o755)
    code, messages = checkout.install(PYTHON=str(old))
    assert code == 1
    assert f"PYTHON={old} is not a Python 3.11 or newer (Python 3.9.2)" in messages
    assert checkout.asked() == []


def test_a_broken_environment_is_not_overwritten(checkout: Checkout) -> None:
    broken = checkout.folder / ".venv" / "keep"
    broken.mkdir(parents=True)
    code, messages = checkout.install()
    assert code == 1
    assert "is not a working Python 3.11 environment" in messages
    assert broken.exists()
