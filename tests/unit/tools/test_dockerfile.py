"""The Dockerfile's rules: NVIDIA's builds stay, and what is copied exists. No Docker engine is needed."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
NVIDIA_BUILDS = (
    "torch",
    "megatron-core",
    "megatron_core",
    "transformer-engine",
    "transformer_engine",
    "apex",
    "flash-attn",
)


def instructions(text: str) -> list[tuple[str, str]]:
    """(KEYWORD, arguments) in order; comments are dropped, continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [
        (word.upper(), rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())
    ]


def pip_installs(text: str) -> list[list[str]]:
    """The words after `pip install` in every RUN, up to the end of that command."""
    runs = [rest for word, rest in instructions(text) if word == "RUN"]
    commands = [part.split() for run in runs for part in re.split(r"&&|;|\|\|", run)]
    return [words[words.index("install") + 1 :] for words in commands if "pip" in words and "install" in words]


def broken_rules(text: str) -> list[str]:
    """What this Dockerfile does that it must not."""
    broken: list[str] = []
    for words in pip_installs(text):
        packages = [re.split(r"[\[<>=!~ ]", word)[0].lower() for word in words if not word.startswith("-")]
        broken += [f"pip installs {name}" for name in packages if name in NVIDIA_BUILDS]
        project = [word for word in words if word == "." or word.startswith((".[", "./"))]
        if project and "--no-deps" not in words:
            broken.append("the project is installed with its dependencies")
        if project and not {"-e", "--editable"} & set(words):
            broken.append("the project is not editable: conf/ is found beside the package")  # see cli/compose.py
        broken += [
            f"{flag} can replace NVIDIA's builds" for flag in ("-U", "--upgrade", "--force-reinstall") if flag in words
        ]
    return broken


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text()


def test_the_rules_hold(dockerfile: str) -> None:
    assert len(pip_installs(dockerfile)) == 2  # the missing ones; the project
    assert broken_rules(dockerfile) == []


@pytest.mark.parametrize(
    "line, broken",
    [
        ("RUN pip install megatron-core==0.16.1", ["pip installs megatron-core"]),
        ("RUN python -m pip install \\\n    'x' apex", ["pip installs apex"]),
        ("RUN true && pip install -e .", ["the project is installed with its dependencies"]),
        ("RUN pip install --no-deps .", ["the project is not editable: conf/ is found beside the package"]),
        ("RUN pip install -U numpy", ["-U can replace NVIDIA's builds"]),
        ("# RUN pip install apex", []),
    ],
)
def test_a_broken_rule_is_found(dockerfile: str, line: str, broken: list[str]) -> None:
    assert broken_rules(f"{dockerfile}\n{line}\n") == broken


def test_it_builds_on_the_nemo_image(dockerfile: str) -> None:
    found = instructions(dockerfile)
    assert found[0][0] == "ARG"
    assert re.fullmatch(r"NEMO_IMAGE=nvcr\.io/nvidia/nemo:\d\d\.\d\d(\.\d\d)?", found[0][1])
    assert found[1] == ("FROM", "${NEMO_IMAGE}")


def test_what_is_copied_exists(dockerfile: str) -> None:
    sources = [source for word, rest in instructions(dockerfile) if word == "COPY" for source in rest.split()[:-1]]
    assert "seif_nemo" in sources
    assert "conf" in sources
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_missing_requirements_are_what_is_installed(dockerfile: str) -> None:
    """The list that pip reads comes from tools/missing_requirements.py, which never names NVIDIA's builds."""
    listed = [words[words.index("-r") + 1] for words in pip_installs(dockerfile) if "-r" in words]
    assert len(listed) == 1
    assert f"python tools/missing_requirements.py > {listed[0]}" in dockerfile
