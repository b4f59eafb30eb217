"""A second division of the same ranks, for generation beside training.

megatron-core keeps the groups of one division in globals of `parallel_state`. Modules take theirs when they are built,
but functions on the way ask the globals. So a second set of globals is kept here, and put in place while the second
model is built and while it runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from megatron.core import parallel_state

from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.parallel.topology import Topology, divide_world


@dataclass(frozen=True, slots=True)
class SecondLayout:
    topology: Topology
    state: dict[str, Any]  # megatron-core's globals

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Megatron-core works with this layout's groups inside the block, with the first one's again after it."""
        first = _state()
        _set(self.state)
        try:
            yield
        finally:
            _set(first)


def add_layout(config: ParallelConfig, first: Topology) -> SecondLayout:
    """Divide the world of `first` once more. Collective. Raises ValueError as `build_topology` does."""
    state = _state()
    _set(dict.fromkeys(state) | {"_HYBRID_DP_CP_GROUPS": {}})
    try:
        topology = divide_world(config, first.device)
        return SecondLayout(topology, _state())
    finally:
        _set(state)


def _state() -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(parallel_state).items()
        if name.startswith("_") and not name.startswith("__") and not callable(value)
    }


def _set(state: dict[str, Any]) -> None:
    for name, value in state.items():
        setattr(parallel_state, name, value)
