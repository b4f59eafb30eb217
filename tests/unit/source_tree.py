"""The files of the project as the static tests see them: every text file of the checkout that git does not ignore."""

import functools
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
_TOP = ("seif_nemo", "conf", "slurm", "tools", "tests", "docs", ".ci")


@functools.cache
def project_files() -> tuple[pathlib.Path, ...]:
    """Absolute paths, sorted. Outside a git checkout (an unpacked archive) the known folders are walked instead."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode == 0:
        found = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    else:
        found = [path for top in _TOP for path in (ROOT / top).rglob("*") if "__pycache__" not in path.parts]
        found += list(ROOT.iterdir())
    return tuple(sorted(path for path in found if path.is_file() and not path.is_symlink()))


def python_files() -> list[pathlib.Path]:
    return [path for path in project_files() if path.suffix == ".py"]


def bash_files() -> list[pathlib.Path]:
    """Files that end in .sh or whose first line asks for bash."""
    return [
        path
        for path in project_files()
        if path.suffix == ".sh" or path.read_bytes()[:64].startswith(b"#!/usr/bin/env bash")
    ]


def relative(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()
