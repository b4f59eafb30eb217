"""tools/missing_requirements.py: what is installed beside the machine's own builds."""

import pathlib

import pytest
from missing_requirements import installed_names, missing_requirements, requirement_name

PYPROJECT = """
[project]
dependencies = ["torch>=2.6", "megatron-core>=0.16,<0.17", "transformers>=4.57,<6", "hydra-core>=1.3.2", "PyArrow>=17"]
[project.optional-dependencies]
dev = ["pytest>=8", "lm-eval[ifeval]==0.4.9.1", "Import_Linter>=2"]
"""


@pytest.mark.parametrize(
    "requirement, name",
    [
        ("torch", "torch"),
        ("hydra-core>=1.3.2,<1.4", "hydra-core"),
        ("lm-eval[ifeval]==0.4.9.1", "lm-eval"),
        ("Import_Linter ~= 2.0", "import-linter"),
        ("zope.interface; python_version < '3.12'", "zope-interface"),
    ],
)
def test_name_of_a_requirement(requirement: str, name: str) -> None:
    assert requirement_name(requirement) == name


def test_a_requirement_without_a_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not start with a distribution name"):
        requirement_name(">=3")


@pytest.fixture
def pyproject(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "pyproject.toml"
    path.write_text(PYPROJECT)
    return path


def test_what_is_there_stays_whatever_its_version(pyproject: pathlib.Path) -> None:
    installed = frozenset({"transformers", "import-linter"})
    assert missing_requirements(pyproject, [], installed) == ["hydra-core>=1.3.2", "PyArrow>=17"]
    assert missing_requirements(pyproject, ["dev"], installed) == [
        "hydra-core>=1.3.2", "PyArrow>=17", "pytest>=8", "lm-eval[ifeval]==0.4.9.1",
    ]  # fmt: skip


def test_torch_and_megatron_are_never_asked_for(pyproject: pathlib.Path) -> None:
    names = [requirement_name(item) for item in missing_requirements(pyproject, ["dev"], frozenset())]
    assert names == ["transformers", "hydra-core", "pyarrow", "pytest", "lm-eval", "import-linter"]


def test_an_unknown_extra_names_the_known_ones(pyproject: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"--extra vlm: choose among \['dev'\]"):
        missing_requirements(pyproject, ["vlm"], frozenset())


def test_an_empty_folder_of_a_removed_distribution_is_no_distribution(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone-1.0.dist-info").mkdir()
    whole = tmp_path / "Under_Scored-2.0.dist-info"
    whole.mkdir()
    (whole / "METADATA").write_text("Metadata-Version: 2.1\nName: Under_Scored\nVersion: 2.0\n")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert installed_names() == {"under-scored"}
