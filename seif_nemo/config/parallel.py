"""Group `parallel`: how the model is spread over ranks. Data parallelism is what is left of the world."""

import math
from dataclasses import dataclass
from enum import Enum


class Backend(Enum):
    auto = "auto"  # nccl where CUDA is, else gloo
    nccl = "nccl"
    gloo = "gloo"


class Recompute(Enum):
    """What the backward pass computes again instead of keeping it (arXiv 2205.05198)."""

    none = "none"
    selective = "selective"  # inside each layer: the feed-forward block, and attention where it is not fused
    full = "full"  # each whole layer: only its input is kept


@dataclass(kw_only=True, slots=True)
class ParallelConfig:
    tensor: int = 1
    pipeline: int = 1
    virtual_pipeline: int = 1  # model chunks on each pipeline stage, interleaved (arXiv 2104.04473)
    pipeline_layout: list[int] | None = None  # layers of each stage (or chunk, as a token passes them); null: equal
    context: int = 1  # ranks that share the positions of each sequence
    sequence: bool = False  # sequence parallelism inside the tensor-parallel group
    expert: int = 1  # ranks that share out the experts of a mixture-of-experts model
    expert_tensor: int | None = None  # tensor parallelism inside each expert; null: as `tensor`
    recompute: Recompute = Recompute.none
    optimizer_offload: bool = False  # Adam's state and the main parameters in host memory, updated there
    backend: Backend = Backend.auto
    collective_timeout_s: float = 1800.0

    def __post_init__(self) -> None:
        for key in ("tensor", "pipeline", "virtual_pipeline", "context", "expert", "expert_tensor"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"parallel.{key}={value} must be at least 1")
        if self.expert == 1 and self.expert_tensor not in (None, self.tensor):
            raise ValueError(
                f"parallel.expert_tensor={self.expert_tensor} needs parallel.expert of at least 2: choose null"
            )
        if self.virtual_pipeline > 1 and self.pipeline == 1:
            raise ValueError(
                f"parallel.virtual_pipeline={self.virtual_pipeline} needs parallel.pipeline of at least 2: choose 1"
            )
        self._check_layout()
        if self.sequence and self.tensor == 1:
            raise ValueError("parallel.sequence=true needs parallel.tensor of at least 2")
        if not 0 < self.collective_timeout_s < math.inf:
            raise ValueError(f"parallel.collective_timeout_s={self.collective_timeout_s} must be positive")

    def _check_layout(self) -> None:
        if self.pipeline_layout is None:
            return
        chunks = self.pipeline * self.virtual_pipeline
        if len(self.pipeline_layout) != chunks:
            raise ValueError(
                f"parallel.pipeline_layout={self.pipeline_layout} has {len(self.pipeline_layout)} entries: choose "
                f"{chunks}, parallel.pipeline={self.pipeline} times parallel.virtual_pipeline={self.virtual_pipeline}"
            )
        if chunks == 1:
            raise ValueError(f"parallel.pipeline_layout={self.pipeline_layout} needs parallel.pipeline of at least 2")
        if min(self.pipeline_layout) < 1:
            raise ValueError(f"parallel.pipeline_layout={self.pipeline_layout}: every entry must be at least 1")
