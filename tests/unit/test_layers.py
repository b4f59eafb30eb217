"""The layers and bans of pyproject.toml's [tool.importlinter]: they hold, and each of them can break."""

import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.unit.source_tree import ROOT


def lint(folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Runs import-linter on the package in `folder`, which shadows the installed one."""
    code = "from importlinter.cli import lint_imports_command as c; c(['--no-logo', '--no-cache'])"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def package_copy(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("layers")
    shutil.copytree(ROOT / "seif_nemo", folder / "seif_nemo", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_the_package_keeps_its_layers() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    "module, line, contract",
    [
        ("types", "import seif_nemo.config", "Imports only go down"),
        ("config", "import seif_nemo.observability", "Imports only go down"),
        ("parallel", "import seif_nemo.models", "Imports only go down"),
        ("models", "import seif_nemo.generation", "Imports only go down"),
        ("weights", "import seif_nemo.checkpointing", "Imports only go down"),
        ("data", "import seif_nemo.algorithms", "Imports only go down"),
        ("roles", "import seif_nemo.components", "Imports only go down"),
        ("components", "import seif_nemo.evolution", "Imports only go down"),
        ("evolution", "import seif_nemo.cli", "Imports only go down"),
        ("extras", "", "Imports only go down"),  # a new subpackage has to be given its layer
        ("evolution", "import megatron.core", "Megatron-core stays"),
        ("algorithms", "from megatron.core import parallel_state", "Megatron-core stays"),
        ("generation", "import megatron.core", "Megatron-core stays"),
        ("generation/megatron", "import vllm", "vLLM stays"),
        ("roles", "import torch", "need no tensors"),
        ("constraints", "import seif_nemo.constraints.through_another", "need no tensors"),
    ],
)
def test_a_wrong_import_is_found(package_copy: pathlib.Path, module: str, line: str, contract: str) -> None:
    target = package_copy / "seif_nemo" / module / "__init__.py"
    new = not target.parent.exists()
    target.parent.mkdir(exist_ok=True)
    before = target.read_text() if target.exists() else ""
    helper = target.parent / "through_another.py"
    try:
        target.write_text(f"{before}\n{line}\n")
        if "through_another" in line:
            helper.write_text("import torch\n")
        result = lint(package_copy)
    finally:
        helper.unlink(missing_ok=True)
        if new:
            shutil.rmtree(target.parent)
        else:
            target.write_text(before)
    assert result.returncode == 1, result.stdout + result.stderr
    broken = [text for text in result.stdout.splitlines() if " BROKEN" in text]
    assert len(broken) == 1, result.stdout
    assert contract in broken[0]
