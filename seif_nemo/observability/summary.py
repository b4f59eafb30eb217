"""What a round came to, read from the metrics: the rows of the table at a run's end and of the report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from seif_nemo.observability.metrics import latest
from seif_nemo.types.records import Phase, StepMetrics

PHASE_NAMES = {
    Phase.PROBE_BEFORE: "Probing the Instructor (before)",
    Phase.INSTRUCTOR: "Training the Instructor",
    Phase.PROBE_AFTER: "Probing the Instructor (after)",
    Phase.SYNTHESIS: "Writing instructions",
    Phase.FOLLOWER: "Training the Follower",
    Phase.EVALUATION: "Evaluating the Follower",
}


@dataclass(frozen=True, slots=True)
class RoundSummary:
    """One round in numbers. None: not measured, or not yet. Rates and shares are in [0, 1]."""

    round: int
    follow_rate: float | None  # held-out prompts, after the round
    change: float | None  # against the nearest earlier round that was evaluated
    difficulty_before: float | None  # 1 - follow rate of the frozen Follower on the Instructor's instructions
    difficulty_after: float | None
    kept: int | None  # instructions in q.parquet
    asked: int | None  # outputs of the Instructor during synthesis
    conflict_share: float | None  # among the kept
    instructor_steps: int
    follower_steps: int
    seconds: float | None  # sum of the `time_s/total` of all steps; time between attempts is not in it


def value_of(metrics: StepMetrics | None, name: str) -> float | None:
    """A value by name; None where the step, the value or a finite number is missing."""
    if metrics is None or name not in metrics.values:
        return None
    value = metrics.values[name]
    return value if math.isfinite(value) else None


def summarise_rounds(metrics: Sequence[StepMetrics]) -> list[RoundSummary]:
    """One row per round that has any step, in order. `metrics` is in the order of `read_metrics`."""
    rows: list[RoundSummary] = []
    previous_rate: float | None = None
    for round_ in sorted({m.key.round for m in metrics}):
        of_round = [m for m in metrics if m.key.round == round_]
        rate = value_of(latest(of_round, round_, Phase.EVALUATION), "eval/follow_rate")
        synthesis = latest(of_round, round_, Phase.SYNTHESIS)
        kept, asked = value_of(synthesis, "synthesis/kept"), value_of(synthesis, "synthesis/asked")
        seconds = [s for m in of_round if (s := value_of(m, "time_s/total")) is not None]
        rows.append(
            RoundSummary(
                round=round_,
                follow_rate=rate,
                change=None if rate is None or previous_rate is None else rate - previous_rate,
                difficulty_before=value_of(latest(of_round, round_, Phase.PROBE_BEFORE), "probe/difficulty"),
                difficulty_after=value_of(latest(of_round, round_, Phase.PROBE_AFTER), "probe/difficulty"),
                kept=None if kept is None else round(kept),
                asked=None if asked is None else round(asked),
                conflict_share=value_of(synthesis, "synthesis/conflict_share"),
                instructor_steps=sum(m.key.phase is Phase.INSTRUCTOR for m in of_round),
                follower_steps=sum(m.key.phase is Phase.FOLLOWER for m in of_round),
                seconds=sum(seconds) if seconds else None,
            )
        )
        previous_rate = previous_rate if rate is None else rate
    return rows


def format_duration(seconds: float) -> str:
    """`8 s`, `3 min 05 s`, `2 h 07 min`, `3 d 04 h`: two units at most, rounded."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24:02d} h"


def format_rate(rate: float | None, *, signed: bool = False) -> str:
    """A rate in [0, 1] with three decimals; `-` for None."""
    if rate is None:
        return "-"
    return f"{rate:+.3f}" if signed else f"{rate:.3f}"


def round_table(metrics: Sequence[StepMetrics]) -> str:
    """The table per round as aligned plain text, ending without a newline. `-`: not measured, or not yet."""
    header = (
        "round",
        "follow rate",
        "change",
        "difficulty before",
        "after",
        "kept/asked",
        "conflicts kept",
        "steps I+F",
        "wall time",
    )
    cells = [header, *(_table_row(row) for row in summarise_rounds(metrics))]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _table_row(row: RoundSummary) -> tuple[str, ...]:
    steps = f"{row.instructor_steps}+{row.follower_steps}" if row.instructor_steps or row.follower_steps else "-"
    return (
        str(row.round),
        format_rate(row.follow_rate),
        format_rate(row.change, signed=True),
        format_rate(row.difficulty_before),
        format_rate(row.difficulty_after),
        "-" if row.kept is None or row.asked is None else f"{row.kept}/{row.asked}",
        format_rate(row.conflict_share),
        steps,
        "-" if row.seconds is None else format_duration(row.seconds),
    )
