"""Opening a run directory: fresh, or to continue what is in it."""

import json
import platform
import socket
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from omegaconf import OmegaConf

from seif_nemo.config.root import Config
from seif_nemo.data.files import write_whole
from seif_nemo.evolution.ledger import read_ledger, take_attempt
from seif_nemo.evolution.paths import RunPaths
from seif_nemo.parallel.collectives import any_rank, barrier, broadcast_int
from seif_nemo.parallel.topology import Topology

# What may differ between the attempts of one run: where and how it is computed and when it gives up, not what.
_MAY_CHANGE = (
    "run.root",
    "run.name",
    "run.threads_per_rank",
    "run.tensorboard",
    "parallel.",
    "checkpoint.",
    "cluster.",
    "roles.host_memory_gib",
    "roles.spill_dir",
    "evolution.rounds",
    "evolution.min_kept_share",
    "algorithm.micro_batch_tokens",
    "algorithm.max_skipped_updates",
    "generation.max_batch_rows",
    "generation.tensor",
    "generation.pipeline",
    "generation.expert",
    "generation.refit_bucket_mib",
    "generation.warn_mismatch",
    "generation.max_mismatch",
    "roles.lora.export_adapter",
    "reward.max_missing_share",
    "reward.min_questions_for_budget",
    "reward.judge_endpoint",  # the same judge may be served elsewhere
    "reward.judge_key_variable",
    "reward.overlap_workers",
    "reward.judge_timeout_s",
    "reward.judge_concurrency",
    "reward.judge_attempts",
    "reward.judge_max_failures",
    "reward.judge_pause_s",
    "reward.judge_first_delay_s",
    "reward.judge_max_delay_s",
    "reward.judge_cache_entries",
)
_PACKAGES = ("torch", "megatron-core", "transformer-engine", "transformers", "hydra-core", "numpy", "pyarrow")


def open_run(config: Config, topology: Topology) -> tuple[RunPaths, int]:
    """The paths of the run and the number of this attempt. Collective.

    Writes config.yaml and provenance.json of this attempt; attempts/ keeps the provenance of each. Raises ValueError,
    on every rank, if a unit of work is finished in the directory under another configuration.
    """
    paths = RunPaths(Path(config.run.root) / config.run.name)
    if any_rank(topology.is_main and bool(read_ledger(paths.ledger)), topology):
        _check_same(config, paths)
    barrier(topology)  # nobody may still be reading what is written now
    attempt = 0
    if topology.is_main:
        facts = provenance(topology)
        attempt = take_attempt(paths.attempts, facts)
        write_whole(paths.config, OmegaConf.to_yaml(OmegaConf.structured(config)))
        write_whole(paths.provenance, json.dumps(facts, indent=2) + "\n")
    return paths, broadcast_int(attempt, topology)


def _check_same(config: Config, paths: RunPaths) -> None:
    now = flatten(OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True))
    then = flatten(OmegaConf.to_container(OmegaConf.load(paths.config)))
    changed = [
        f"{key}: {then.get(key, 'absent')} is now {now.get(key, 'absent')}"
        for key in sorted(now.keys() | then.keys())
        if now.get(key) != then.get(key) and not key.startswith(_MAY_CHANGE)
    ]
    judges = [values.get("reward.judge_endpoint") for values in (then, now)]
    if judges.count(None) == 1:  # another judge, not another address of the same
        changed.append(f"reward.judge_endpoint: {judges[0]} is now {judges[1]}")
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
        "layout": f"tensor {topology.tensor} x context {topology.context} x pipeline {topology.pipeline} "
        f"x data {topology.data}"
        + (f", expert {topology.expert} x {topology.expert_tensor}" if topology.expert > 1 else ""),
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
