"""Updates that were skipped because their gradients were not finite: how many in a row are too many."""

from collections.abc import Sequence

from seif_nemo.types.training import TrainSample, ValueSample


class NonFiniteGradientsError(RuntimeError):
    """Too many updates in a row had gradients that are not finite. `samples` are those of the last one."""

    def __init__(self, message: str, samples: Sequence[TrainSample | ValueSample]) -> None:
        super().__init__(message)
        self.samples = tuple(samples)


class SkipWatch:
    """Counts skipped updates in a row."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_a_row = 0

    def saw(self, updated: bool, samples: Sequence[TrainSample | ValueSample]) -> None:
        """An update by these samples was made or skipped. Raises NonFiniteGradientsError at the limit."""
        self._in_a_row = 0 if updated else self._in_a_row + 1
        if self._in_a_row >= self._limit:
            raise NonFiniteGradientsError(
                f"{self._limit} updates in a row had gradients that are not finite "
                f"(algorithm.max_skipped_updates={self._limit})",
                samples,
            )
