"""The topology of the first rank, without a world around it."""

from typing import Any

import torch

from seif_nemo.parallel.topology import Topology


def make_topology(*, group: Any = None, **changes: Any) -> Topology:
    """One rank alone, with `changes`; every group is `group`."""
    groups = ("tensor", "pipeline", "data", "context", "replica", "world")
    groups = (*groups, "expert_tensor", "expert_block", "expert_replica")
    sizes = ("world_size", "tensor", "pipeline", "data", "context", "virtual", "expert", "expert_tensor")
    ranks = ("", "tensor_", "pipeline_", "data_", "context_", "expert_", "expert_tensor_")
    values: dict[str, Any] = {
        **dict.fromkeys(sizes, 1),
        **{f"{name}rank": 0 for name in ranks},
        **{f"{name}_group": group for name in groups},
        "sequence": False,
        "device": torch.device("cpu"),
        "last_stage_rank": 0,
        "collective_timeout_s": 60.0,
        "pipeline_layout": None,
    }
    return Topology(**(values | changes))
