"""Asking a model for verdicts: what the Judger needs of whatever holds the model."""

from collections.abc import Sequence
from typing import Protocol

from seif_nemo.types.questions import Question
from seif_nemo.types.verdicts import Verdict


class JudgeUnavailableError(RuntimeError):
    """A judge could not be reached or answered with an error.

    `retryable` is False where asking again cannot help (a refused request). `retry_after_s` is how long the judge asked
    to be left alone, 0 if it did not say.
    """

    def __init__(self, message: str, *, retryable: bool = True, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.retry_after_s = retry_after_s


class Judge(Protocol):
    """Verdicts of one model, in one mode, by one template."""

    @property
    def name(self) -> str:
        """For people: which judge this is."""
        ...

    @property
    def identity(self) -> str:
        """All that a verdict depends on besides the question, such as the digest of the weights. May be collective."""
        ...

    def __call__(self, questions: Sequence[Question]) -> list[Verdict]:
        """One verdict per question, in order; collective.

        What got no verdict is MISSING with its reason. May raise JudgeUnavailableError if all of them are.
        """
        ...


class RemoteJudge(Judge, Protocol):
    """A judge that needs nothing of the ranks' devices, so that it can work beside them."""

    def ask_ahead(self, question: Question) -> None:
        """Get the verdict now that the next call will be asked for. Not collective; from any thread.

        Does nothing on a rank that does not ask. Never raises for a judge that gives no verdict: the call, which all
        ranks make together, asks again.
        """
        ...
