"""Rows of the files in a run directory."""

from dataclasses import dataclass, field
from enum import StrEnum

from seif_nemo.types.constraints import Constraint


class Phase(StrEnum):
    """The phases of a round, in order. Round 0 has only EVALUATION (of the base model)."""

    PROBE_BEFORE = "probe_before"  # how hard the Instructor's instructions are before its phase
    INSTRUCTOR = "instructor"
    PROBE_AFTER = "probe_after"
    SYNTHESIS = "synthesis"
    FOLLOWER = "follower"
    EVALUATION = "evaluation"


class RejectReason(StrEnum):
    """Why the gate refused an Instructor's output, in the order in which the gate asks."""

    UNFINISHED = "unfinished"  # ran into the token limit
    UNPARSABLE = "unparsable"
    WRONG_COUNT = "wrong_count"
    REPEATED = "repeated"  # two constraints of one instruction say the same
    NOT_A_CONSTRAINT = "not_a_constraint"
    NO_RULE = "no_rule"  # rules-only judging: a demand that no rule covers
    CONFLICT = "conflict"  # two constraints provably exclude each other
    SEED_CONFLICT = "seed_conflict"  # a proven contradiction to what the seed question itself demands
    FILTERED = "filtered"  # the model Filter refused
    FILTER_MISSING = "filter_missing"  # the model Filter gave no verdict
    TOO_LONG = "too_long"  # the Follower's prompt would not fit the model's maximum sequence length
    UNSOLVABLE = "unsolvable"  # none of the frozen evaluator's answers satisfies all of it
    DUPLICATE = "duplicate"  # synthesis only: the same instruction was kept before


@dataclass(frozen=True, slots=True)
class SeedQuestion:
    """One seed question; `row` is its place in the file it came from (1 = first data row)."""

    text: str
    row: int


@dataclass(frozen=True, slots=True)
class KeptInstruction:
    """A row of q.parquet."""

    seed_question: str
    prompt: str
    constraints: tuple[Constraint, ...]
    round: int
    instructor_digest: str


@dataclass(frozen=True, slots=True)
class RejectedInstruction:
    """A row of rejected.parquet: the Instructor's raw text and why the gate refused it."""

    seed_question: str
    raw: str
    reason: RejectReason
    detail: str
    round: int
    instructor_digest: str


@dataclass(frozen=True, slots=True)
class UnitKey:
    """A unit of work: one step of one phase of one round. Phases without steps have the single step 0."""

    round: int
    phase: Phase
    step: int


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """A line of metrics.jsonl. The last line of a (round, phase, step) counts: a redone step writes a second one."""

    key: UnitKey
    time_s: float  # Unix time
    values: dict[str, float] = field(default_factory=dict[str, float])
