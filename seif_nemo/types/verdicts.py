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


@dataclass(frozen=True, slots=True)
class Verdict:
    outcome: Outcome
    source: Source
    evidence: str = ""  # e.g. "12 words, at most 10 allowed", or the tail of the judge's text


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
