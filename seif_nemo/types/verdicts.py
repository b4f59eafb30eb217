"""Verdicts: whether one response satisfies one constraint, who says so, and on what evidence."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    MISSING = "missing"  # no verdict was reached; it is neither 0 nor 1 and never enters a rate


class Source(StrEnum):
    RULE = "rule"
    MODEL = "model"


class Why(StrEnum):
    """Why a verdict is missing."""

    UNPARSABLE = "unparsable"  # the judge's text holds no verdict, or ran into the token limit
    UNAVAILABLE = "unavailable"  # the judge could not be reached, or answered with an error
    UNDECIDED = "undecided"  # the judge's probability is too close to one half
    TOO_LONG = "too_long"  # the question does not fit the judge's context
    NO_RULE = "no_rule"  # rules-only judging, and no rule covers all of it: nobody was asked


@dataclass(frozen=True, slots=True)
class Verdict:
    outcome: Outcome
    source: Source
    evidence: str = ""  # e.g. "12 words, at most 10 allowed", or the tail of the judge's text
    why: Why | None = None  # of a missing one; None there only in files of older runs

    def __post_init__(self) -> None:
        assert self.why is None or self.outcome is Outcome.MISSING, f"{self.outcome} has no reason to be missing"


@dataclass(frozen=True, slots=True)
class Score:
    """All verdicts on one response, in the order of the instruction's constraints."""

    verdicts: tuple[Verdict, ...]

    @property
    def follow_rate(self) -> float | None:
        """Share of passed verdicts, METHOD's A(x, y). None if any verdict is missing: a partial rate is biased."""
        if not self.verdicts or any(v.outcome is Outcome.MISSING for v in self.verdicts):
            return None
        return sum(v.outcome is Outcome.PASSED for v in self.verdicts) / len(self.verdicts)
