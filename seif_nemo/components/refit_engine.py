"""The in-place engine on a model of its own, in another layout than the trained one, on the same ranks."""

from collections.abc import Callable, Sequence

from seif_nemo.generation.megatron.engine import MegatronEngine
from seif_nemo.parallel.second_layout import SecondLayout
from seif_nemo.protocols.engine import OnFinished, StaleWeightsError
from seif_nemo.types.rollouts import GenerationRequest, Rollout, SamplingParams
from seif_nemo.weights.refit import Refit


class RefitEngine:
    """Brings the weights of the trained model over when they are others than the last ones, then generates.

    `make_engine` gets what says which version the generation model holds. `version` and `digest` are those of the
    weights in the trained model.
    """

    def __init__(
        self,
        make_engine: Callable[[Callable[[], str]], MegatronEngine],
        layout: SecondLayout,
        refit: Refit,
        *,
        version: Callable[[], str],
        digest: Callable[[], str],
    ) -> None:
        self._engine = make_engine(lambda: self._held_version)
        self._layout = layout
        self._refit = refit
        self._version = version
        self._digest = digest
        self._held_version = "nothing"
        self._held_digest: str | None = None

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        sampling: SamplingParams,
        *,
        weight_version: str,
        on_finished: OnFinished | None = None,
    ) -> list[Rollout]:
        """See `protocols/engine.py`. Raises RefitError too, if other weights arrived than were sent."""
        if self._version() != weight_version:
            raise StaleWeightsError(f"asked for weights {weight_version!r}, but the model holds {self._version()!r}")
        self._bring()
        self._held_version = weight_version
        with self._layout.in_place():
            return self._engine.generate(requests, sampling, weight_version=weight_version, on_finished=on_finished)

    def invalidate_caches(self) -> None:
        """A swap or an update changes the trained model only: what is cached here is of the weights held here."""

    def _bring(self) -> None:
        digest = self._digest()
        if digest == self._held_digest:
            return
        self._held_version, self._held_digest = "nothing", None
        self._engine.invalidate_caches()
        self._refit.run(digest)
        self._held_digest = digest
