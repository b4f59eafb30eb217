"""Group `cluster`: what `slurm/round.sh` needs of a site."""

import math
from dataclasses import dataclass


@dataclass(kw_only=True, slots=True)
class ClusterConfig:
    rendezvous_timeout_s: float = 300.0
    # How long a rank with bad input waits for the main rank to name the same fault, before it speaks itself.
    refusal_wait_s: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.rendezvous_timeout_s < math.inf:
            raise ValueError(f"cluster.rendezvous_timeout_s={self.rendezvous_timeout_s} must be positive")
        if not 0 < self.refusal_wait_s < math.inf:
            raise ValueError(f"cluster.refusal_wait_s={self.refusal_wait_s} must be positive")
