"""A generation engine, in place (Megatron) or beside (vLLM)."""

from collections.abc import Sequence
from typing import Protocol

from seif_nemo.types.rollouts import GenerationRequest, Rollout, SamplingParams


class Engine(Protocol):
    def generate(
        self, requests: Sequence[GenerationRequest], sampling: SamplingParams, *, weight_version: str
    ) -> list[Rollout]:
        """One rollout per request, in order.

        Collective: every rank of the trainer's world calls it with the same arguments and gets the same whole answer;
        the work is shared out inside. Raises `StaleWeightsError` if the engine holds another version of the weights
        than `weight_version`, and `ValueError` for a prompt that does not fit the model's maximum sequence length.
        """
        ...

    def invalidate_caches(self) -> None:
        """Forget everything derived from the weights (KV, prefix, graphs). Called on every swap and update."""
        ...


class StaleWeightsError(RuntimeError):
    """The engine holds other weights than the caller asked for."""
