"""Opening a run directory: fresh, or to continue what is in it."""

import json
import os
import platform
import socket
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from omegaconf import OmegaConf

from seif_nemo.config.root import Config
from seif_nemo.evolution.ledger import read_ledger, take_attempt
from seif_nemo.evolution.paths import RunPaths
from seif_nemo.parallel.collectives import barrier, broadcast_int
from seif_nemo.parallel.topology import Topology

# What may differ between the attempts of one run: where and how it is computed, not what.
_MAY_CHANGE = (
    "run.root",
    "run.name",
    "run.threads_per_rank",
    "run.tensorboard",
    "parallel.",
    "checkpoint.",
    "cluster.",
    "evolution.rounds",
)
_PACKAGES = ("torch", "megatron-core", "transformer-engine", "transformers", "hydra-core", "numpy", "pyarrow")


def open_run(config: Config, topology: Topology) -> tuple[RunPaths, int]:
    """The paths of the run and the number of this attempt. Collective.

    A directory in which no unit of work is finished gets config.yaml and provenance.json. Raises ValueError, on every
    rank, if the directory holds a run of another configuration.
    """
    paths = RunPaths(Path(config.run.root) / config.run.name)
    if topology.is_main and not read_ledger(paths.ledger):
        paths.root.mkdir(parents=True, exist_ok=True)
        _write(paths.config, OmegaConf.to_yaml(OmegaConf.structured(config)))
    barrier(topology)
    _check_same(config, paths)
    if topology.is_main:
        _write(paths.provenance, json.dumps(provenance(topology), indent=2) + "\n")
    attempt = broadcast_int(take_attempt(paths.root) if topology.is_main else 0, topology)
    return paths, attempt


def _check_same(config: Config, paths: RunPaths) -> None:
    now = flatten(OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True))
    then = flatten(OmegaConf.to_container(OmegaConf.load(paths.config)))
    changed = [
        f"{key}: {then.get(key, 'absent')} is now {now.get(key, 'absent')}"
        for key in sorted(now.keys() | then.keys())
        if now.get(key) != then.get(key) and not key.startswith(_MAY_CHANGE)
    ]
    if changed:
        raise ValueError(
            f"{paths.root} holds a run of another configuration ({'; '.join(changed)}): "
            "choose another run.name, or remove that directory"
        )


def flatten(tree: object, prefix: str = "") -> dict[str, object]:
    """`{"a": {"b": 1}}` → `{"a.b": 1}`; lists stay values."""
    if not isinstance(tree, dict):
        return {prefix.rstrip("."): tree}
    flat: dict[str, object] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.")
    return flat


def provenance(topology: Topology) -> dict[str, str]:
    """Versions, code revision, host and layout of this attempt."""
    facts = {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "layout": f"tensor {topology.tensor} x pipeline {topology.pipeline} x data {topology.data}",
        "sequence_parallel": str(topology.sequence).lower(),
        "device": topology.device.type,
        "revision": _revision(),
        "command": " ".join(sys.argv),
    }
    for name in _PACKAGES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = "absent"
    return facts


def _revision() -> str:
    """The code's git revision, or "unknown" outside a checkout."""
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return result.stdout.strip()


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
