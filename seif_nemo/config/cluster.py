"""Group `cluster`: what `slurm/round.sh` needs of a site."""

from dataclasses import dataclass


@dataclass(kw_only=True, slots=True)
class ClusterConfig:
    rendezvous_timeout_s: float = 300.0

    def __post_init__(self) -> None:
        if self.rendezvous_timeout_s <= 0:
            raise ValueError(f"cluster.rendezvous_timeout_s={self.rendezvous_timeout_s} must be positive")
