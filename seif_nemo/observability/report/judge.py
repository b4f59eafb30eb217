"""How far the model judge can be trusted: what it says where rules know."""

import statistics
from collections.abc import Sequence

from seif_nemo.observability.report.loading import RunData
from seif_nemo.observability.report.markup import Html, tag
from seif_nemo.observability.report.parts import count, not_yet, number, section, table
from seif_nemo.observability.report.training import ROLES, curve
from seif_nemo.observability.summary import value_of
from seif_nemo.types.records import StepMetrics

_RATES = (("judge/false_pass_rate", "false passes"), ("judge/false_fail_rate", "false fails"))
_MISSING = "judge/missing/"


def judge_section(data: RunData) -> Html:
    """The judge's false pass and false fail rates by step, and what it was asked."""
    heading = "Trust in the judge"
    lead = (
        "In each step the model judge also gets some questions that a rule has decided. False passes are the share of "
        "what fails by rule that the judge passes; they pay the Follower for nothing. False fails are the share of "
        "what passes by rule that the judge fails; they pay the Instructor for nothing. Questions without a verdict "
        "are in neither."
    )
    if not any(_sum(data.steps(phase), "judge/asked") for phase, _, _ in ROLES):
        return section("judge", heading, lead, not_yet("no training step has asked a model judge."))
    charts: list[Html] = []
    for name, title in _RATES:
        for phase, role, color in ROLES:
            chart = curve(data.steps(phase), name, f"{role}: {title}", color, (0.0, 1.0), None)
            charts.append(chart or not_yet(f"{role} has no step with a rate of {title}."))
    rows = [
        _row(f"{round_}, {role}", steps)
        for round_ in sorted({m.key.round for m in data.metrics})
        for phase, role, _ in ROLES
        if (steps := [s for s in data.steps(phase) if s.key.round == round_])
    ]
    head = ["round, role", "checked", "without verdict", "false passes", "false fails"]
    head += ["questions asked", "not asked twice", "missing verdicts"]
    return section(
        "judge", heading, lead, tag("div", charts, class_="grid"), table(head, rows, caption="Means of steps")
    )


def _row(label: str, steps: Sequence[StepMetrics]) -> list[str]:
    reasons = sorted({name for step in steps for name in step.values if name.startswith(_MISSING)})
    missing = ", ".join(f"{name.removeprefix(_MISSING)} {count(_sum(steps, name))}" for name in reasons)
    return [
        label,
        count(_sum(steps, "judge/meter_questions")),
        count(_sum(steps, "judge/meter_missing")),
        *(number(statistics.fmean(found) if (found := _values(steps, name)) else None) for name, _ in _RATES),
        count(_sum(steps, "judge/asked")),
        count(_sum(steps, "judge/cache_hits")),
        missing or "-",
    ]


def _values(steps: Sequence[StepMetrics], name: str) -> list[float]:
    return [value for step in steps if (value := value_of(step, name)) is not None]


def _sum(steps: Sequence[StepMetrics], name: str) -> float | None:
    return sum(found) if (found := _values(steps, name)) else None
