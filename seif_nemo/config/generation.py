"""Group `generation`: how rollouts are made."""

import math
from dataclasses import dataclass


@dataclass(kw_only=True, slots=True)
class GenerationConfig:
    max_new_tokens: int = 8192
    temperature: float = 1.0  # for training rollouts and synthesis
    top_p: float = 1.0
    top_k: int = 0
    max_batch_rows: int = 64  # rows decoded together on one data-parallel replica
    tensor: int | None = None  # with the next two: the layout of a model of its own; null: as in `parallel`
    pipeline: int | None = None
    expert: int | None = None
    refit_bucket_mib: float = 256.0  # of weights that a rank has under way to that model at a time
    max_mismatch: float = 1.2  # mean exp|train − generate log-prob| above which the run stops
    warn_mismatch: float = 1.05

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"generation.max_new_tokens={self.max_new_tokens} must be at least 1")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"generation.temperature={self.temperature} must be positive: GRPO needs varied responses")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"generation.top_p={self.top_p} must be in (0, 1]")
        if self.top_k < 0:
            raise ValueError(f"generation.top_k={self.top_k} must be 0 (off) or positive")
        if self.max_batch_rows < 1:
            raise ValueError(f"generation.max_batch_rows={self.max_batch_rows} must be at least 1")
        for key in ("tensor", "pipeline", "expert"):
            if (value := getattr(self, key)) is not None and value < 1:
                raise ValueError(f"generation.{key}={value} must be at least 1, or null for parallel.{key}")
        if not 0 < self.refit_bucket_mib < math.inf:
            raise ValueError(f"generation.refit_bucket_mib={self.refit_bucket_mib} must be positive")
        if not 1 <= self.warn_mismatch <= self.max_mismatch:
            raise ValueError(
                f"generation.warn_mismatch={self.warn_mismatch} must be between 1 and max_mismatch={self.max_mismatch}"
            )
