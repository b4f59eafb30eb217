"""A generation engine, in place (Megatron) or beside (vLLM)."""

from collections.abc import Callable, Sequence
from typing import Protocol

from seif_nemo.types.rollouts import GenerationRequest, Rollout, SamplingParams

OnFinished = Callable[[int, Rollout], None]  # (index of the request, its rollout)


class Engine(Protocol):
    def generate(
        self,
        requests: Sequence[GenerationRequest],
        sampling: SamplingParams,
        *,
        weight_version: str,
        on_finished: OnFinished | None = None,
    ) -> list[Rollout]:
        """One rollout per request, in order.

        Collective: every rank of the trainer's world calls it with the same arguments and gets the same whole answer;
        the work is shared out inside. Raises `StaleWeightsError` if the engine holds another version of the weights
        than `weight_version`, and `ValueError` for a prompt that does not fit the model's maximum sequence length.

        `on_finished` gets each rollout as soon as it is whole, while others are still generated, on the ranks that hold
        it then: those of one data-parallel replica. It must be quick and must not be collective.
        """
        ...

    def invalidate_caches(self) -> None:
        """Forget everything derived from the weights (KV, prefix, graphs). Called on every swap and update."""
        ...


class StaleWeightsError(RuntimeError):
    """The engine holds other weights than the caller asked for."""
