"""Group `run`: what the run is called, where it lives, how it is made reproducible."""

from dataclasses import dataclass


@dataclass(kw_only=True, slots=True)
class RunConfig:
    name: str = "seif"
    root: str = "runs"  # the run directory is <root>/<name>
    seed: int = 0
    deterministic: bool = True  # deterministic kernels; resume is bit-identical
    tensorboard: bool = False  # mirror metrics.jsonl to <run directory>/tensorboard; needs the package tensorboard
    threads_per_rank: int = 1  # CPU threads of each rank; more is slower for small models

    def __post_init__(self) -> None:
        if self.name in ("", ".", "..") or "/" in self.name:
            raise ValueError(f"run.name={self.name!r} must be a plain folder name; put the parent folder in run.root")
        if self.threads_per_rank < 1:
            raise ValueError(f"run.threads_per_rank={self.threads_per_rank} must be at least 1")
