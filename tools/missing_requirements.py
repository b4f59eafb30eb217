"""Prints the project's requirements that no installed distribution of that name meets, one per line.

For machines that bring their own builds (NVIDIA's containers): what is there stays, whatever its version, and only what
is absent is installed. `torch`, `megatron-core` and the like are never printed: where they are absent, this is not the
way to install.
"""

import argparse
import importlib.metadata
import pathlib
import re
import tomllib

NEVER = frozenset({"torch", "megatron-core", "transformer-engine", "apex"})


def requirement_name(requirement: str) -> str:
    """The normalised distribution name of a requirement such as `lm-eval[ifeval]==0.4.9.1`."""
    match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement)
    if match is None:
        raise ValueError(f"{requirement!r} in pyproject.toml does not start with a distribution name")
    return re.sub(r"[-_.]+", "-", match.group()).lower()


def installed_names() -> frozenset[str]:
    """Normalised names of every distribution that this interpreter sees.

    A removal may leave an empty `.dist-info` folder behind: it is listed as a distribution without a name.
    """
    names = [dist.metadata["Name"] for dist in importlib.metadata.distributions()]
    return frozenset(requirement_name(name) for name in names if name)


def missing_requirements(pyproject: pathlib.Path, extras: list[str], installed: frozenset[str]) -> list[str]:
    """Requirements of the project and of `extras` whose name is neither installed nor in NEVER, in the file's order."""
    project = tomllib.loads(pyproject.read_text())["project"]
    wanted: list[str] = list(project["dependencies"])
    for extra in extras:
        if extra not in project["optional-dependencies"]:
            raise ValueError(f"--extra {extra}: choose among {sorted(project['optional-dependencies'])}")
        wanted += project["optional-dependencies"][extra]
    return [item for item in wanted if requirement_name(item) not in installed | NEVER]


def main() -> None:
    """Command line: `missing_requirements.py [--extra NAME …]`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extra", action="append", default=[], help="also look at this optional dependency group")
    pyproject = pathlib.Path(__file__).resolve().parent.parent / "pyproject.toml"
    for requirement in missing_requirements(pyproject, parser.parse_args().extra, installed_names()):
        print(requirement)


if __name__ == "__main__":
    main()
