"""How it came about: gate decisions, training curves, diversity, wall time."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence

from seif_nemo.observability.metrics import latest
from seif_nemo.observability.report.charts import (
    Band,
    Bar,
    Segment,
    Series,
    as_number,
    as_rate,
    line_chart,
    stacked_bars,
)
from seif_nemo.observability.report.loading import RunData
from seif_nemo.observability.report.markup import Html, clip, tag
from seif_nemo.observability.report.parts import count, not_yet, number, section, table, words
from seif_nemo.observability.summary import PHASE_NAMES, format_duration, value_of
from seif_nemo.types.records import Phase, RejectReason, StepMetrics

_REASON_NAMES = {
    RejectReason.WRONG_COUNT.value: "wrong number",
    RejectReason.NOT_A_CONSTRAINT.value: "no constraint",
    RejectReason.CONFLICT.value: "conflict by rule",
    RejectReason.SEED_CONFLICT.value: "conflict with seed",
    RejectReason.FILTERED.value: "refused by Filter",
    RejectReason.FILTER_MISSING.value: "Filter silent",
}
_REASON_COLORS = ("slate", "yellow", "orange", "pink", "brown", "sky", "red", "violet", "teal", "green", "plum", "aqua")
ROLES = ((Phase.INSTRUCTOR, "Instructor", "c-instructor"), (Phase.FOLLOWER, "Follower", "c-follower"))
_PARTS = {"generate": "blue", "answer": "aqua", "reference": "yellow", "train": "orange", "save": "violet"}
_FINAL_COUNTS = ("synthesis/asked", "synthesis/kept")
_SMOOTH_FROM, _SMOOTH_OVER = 12, 5  # steps
_FREQUENT = 5


def reason_name(reason: str) -> str:
    """A gate reason in words."""
    return _REASON_NAMES.get(reason, reason.replace("_", " "))


def gate_section(data: RunData) -> Html:
    lead = (
        "What the gate decided on each output of the Instructor: while it was trained (the reward's view) and while "
        "the Follower's data were written. Every refusal has a reason."
    )
    heading = "Gate decisions"
    bars, counted = [], []
    for round_ in sorted({m.key.round for m in data.metrics}):
        for phase, label in ((Phase.INSTRUCTOR, "training"), (Phase.SYNTHESIS, "data set")):
            counts = _gate_counts([m for m in data.steps(phase) if m.key.round == round_])
            if counts["asked"]:
                counted.append((round_, label, counts))
                bars.append(_gate_bar(f"R{round_} {label}", counts))
    if not counted:
        return section("gate", heading, lead, not_yet("the gate has decided nothing."))
    reasons = [r for r in _gate_reasons() if any(counts[r] for _, _, counts in counted)]
    reasons += sorted({name for _, _, c in counted for name in c if c[name]} - {"asked", "kept", *reasons})
    head = ["round, for", "asked", "kept", "kept share", *map(reason_name, reasons)]
    rows = [
        [
            f"{r}, {label}",
            count(c["asked"]),
            count(c["kept"]),
            number(c["kept"] / c["asked"]),
            *(count(c[n]) for n in reasons),
        ]
        for r, label, c in counted
    ]
    chart = stacked_bars("Gate decisions, share of those asked", bars, whole=1.0, number=_percent, x_label="share")
    return section("gate", heading, lead, chart, table(head, rows))


def curves_section(data: RunData) -> Html:
    lead = (
        "One point per step; steps are numbered through over the rounds. In long rounds the thin line is each step and "
        f"the thick one the mean over {_SMOOTH_OVER} neighbours. KL is the estimate to the reference policy. The "
        "train/generate ratio should stay near 1; the dashed line is the warning at 1.05. A group whose answers all "
        "got the same reward teaches nothing."
    )
    heading = "Training curves"
    charts: list[Html] = []
    for name, title, limits, rule in (
        ("reward/mean", "mean reward", (0.0, 1.0), None),
        ("train/kl", "KL to the reference", None, None),
        ("mismatch/ratio", "train/generate ratio", None, 1.05),
    ):
        for phase, role, color in ROLES:
            chart = curve(data.steps(phase), name, f"{role}: {title}", color, limits, rule)
            charts.append(chart or not_yet(f"{role} has no step with a {title}."))
    rows = [_phase_row(round_, role, steps) for round_, role, steps in _role_phases(data)]
    head = ["round, role", "steps", "reward, first → last quarter", "KL at the end", "gradient norm, highest"]
    head += ["clipped tokens", "ratio, highest", "groups of equal rewards", "tokens per answer", "tokens/s"]
    head += ["rewards missing"]
    summary = table(head, rows, caption="By phase") if rows else None
    return section("curves", heading, lead, tag("div", charts, class_="grid"), summary)


def diversity_section(data: RunData) -> Html:
    lead = (
        "Share of the Instructor's outputs that have a template of their own after numbers and names are taken out. A "
        "fall means that it repeats itself: harder by collapse, not by skill."
    )
    heading = "Diversity of the Instructor's instructions"
    sources = (
        (Phase.SYNTHESIS, "synthesis/distinct_template_share", "data set", "c-blue"),
        (Phase.PROBE_BEFORE, "probe/distinct_template_share", "probe before the phase", "c-slate"),
        (Phase.PROBE_AFTER, "probe/distinct_template_share", "probe after the phase", "c-orange"),
    )
    series = []
    for phase, name, label, color in sources:
        points = [(s.key.round, v) for s in data.steps(phase) if (v := value_of(s, name)) is not None]
        if points:
            series.append(Series(label, color, tuple(points)))
    if not series:
        return section("diversity", heading, lead, not_yet("no outputs of the Instructor were counted."))
    rounds = sorted({round(x) for s in series for x, _ in s.points})
    title = "Distinct templates per round"
    limits = (0.0, 1.0)
    chart = line_chart(title, series, x_label="round", x_ticks=rounds, limits=limits, number=as_rate)
    rows = []
    for r in rounds:
        values = [value_of(latest(data.metrics, r, phase), name) for phase, name, _, _ in sources]
        conflicts = value_of(latest(data.metrics, r, Phase.SYNTHESIS), "synthesis/conflict_share")
        rows.append([str(r), *map(number, values), number(conflicts)])
    head = ["round", *(label for _, _, label, _ in sources), "conflicts among kept"]
    frequent = [_frequent(files.round, [row.constraints for row in files.kept]) for files in data.rounds if files.kept]
    grid = tag("div", chart, table(head, rows), class_="grid")
    return section("diversity", heading, lead, grid, tag("div", frequent, class_="grid"))


def time_section(data: RunData) -> Html:
    lead = "Seconds that the finished steps took. Queueing, restarts and steps that were lost are not in it."
    heading = "Wall time by phase"
    phases = [p for p in Phase if any(value_of(s, "time_s/total") is not None for s in data.steps(p))]
    untimed = [PHASE_NAMES[p] for p in Phase if p not in phases and data.steps(p)]
    if not phases:
        return section("time", heading, lead, not_yet("no step has recorded its time."))
    longest = max(_seconds(data.steps(phase)) or 0.0 for phase in phases)
    unit, divisor = ("hours", 3600) if longest > 3 * 3600 else ("minutes", 60) if longest > 180 else ("seconds", 1)
    bars = [_time_bar(phase, data.steps(phase), divisor) for phase in phases]
    rows = []
    for r in sorted({m.key.round for m in data.metrics}):
        seconds = [_seconds([s for s in data.steps(p) if s.key.round == r]) for p in phases]
        total = sum(s for s in seconds if s is not None)
        rows.append([str(r), *("-" if s is None else format_duration(s) for s in seconds), format_duration(total)])
    head = ["round", *(_SHORT_PHASES[p] for p in phases), "sum"]
    chart = stacked_bars(
        "Wall time by phase, all rounds",
        bars,
        whole=None,
        number=as_number,
        x_label=unit,
    )
    note = f"No time was recorded for: {', '.join(untimed)}." if untimed else None
    return section("time", heading, lead, chart, table(head, rows), tag("p", note, class_="soft") if note else None)


_SHORT_PHASES = {
    Phase.PROBE_BEFORE: "probe before",
    Phase.INSTRUCTOR: "Instructor",
    Phase.PROBE_AFTER: "probe after",
    Phase.SYNTHESIS: "synthesis",
    Phase.FOLLOWER: "Follower",
    Phase.EVALUATION: "evaluation",
}


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _gate_reasons() -> list[str]:
    return [reason.value for reason in RejectReason]


def _gate_counts(steps: Sequence[StepMetrics]) -> Counter[str]:
    """Sums of the gate's counts; `unaccounted` are outputs that were asked about and neither kept nor refused.

    The last step of a synthesis has the final counts, after duplicates are out.
    """
    counts: Counter[str] = Counter()
    final = steps[-1] if steps and "synthesis/asked" in steps[-1].values else None
    for step in steps if final is None else [final]:
        for name in step.values:
            place, _, reason = name.rpartition("/")
            counted = place == "gate" if final is None else place == "synthesis/rejected" or name in _FINAL_COUNTS
            if counted and (value := value_of(step, name)) is not None:
                counts[reason] += round(value)
    missing = 2 * counts["asked"] - sum(counts.values())
    if missing > 0:
        counts["unaccounted"] = missing
    return counts


def _gate_bar(label: str, counts: Counter[str]) -> Bar:
    colors = {"kept": "c-blue"}
    for index, reason in enumerate(_gate_reasons()):
        colors[reason] = f"c-{_REASON_COLORS[index % len(_REASON_COLORS)]}"
    names = ["kept", *_gate_reasons(), *sorted(set(counts) - {"asked", "kept", *_gate_reasons()})]
    segments = [Segment(reason_name(n), colors.get(n, "c-slate"), counts[n] / counts["asked"]) for n in names]
    return Bar(label, tuple(segments), f"{counts['asked']:,}")


def curve(
    steps: Sequence[StepMetrics],
    name: str,
    title: str,
    color: str,
    limits: tuple[float, float] | None,
    rule: float | None,
) -> Html | None:
    """The line of one value over a role's steps, rounds marked. None if no step has the value."""
    bands: list[Band] = []
    series: list[Series] = []
    place = 0
    for round_ in sorted({s.key.round for s in steps}):
        found = [value_of(s, name) for s in steps if s.key.round == round_]
        values = [math.nan if v is None else v for v in found]
        bands.append(Band(place + 0.5, place + len(values) + 0.5, f"round {round_}"))
        xs = [float(place + 1 + index) for index in range(len(values))]
        long = len(values) >= _SMOOTH_FROM
        if long:
            points = tuple(zip(xs, values, strict=True))
            series.append(Series(title, color, points, faint=True, marks=False, in_legend=False))
            values = _smooth(values)
        series.append(Series(title, color, tuple(zip(xs, values, strict=True)), marks=not long, in_legend=False))
        place += len(xs)
    if not any(math.isfinite(y) for one in series for _, y in one.points):
        return None
    return line_chart(title, series, x_label="step", bands=bands, limits=limits, rule=rule)


def _smooth(values: Sequence[float]) -> list[float]:
    """Centred means over `_SMOOTH_OVER` steps; at the ends over what there is. NaN only where all of them are."""
    half = _SMOOTH_OVER // 2
    means = []
    for index in range(len(values)):
        near = [v for v in values[max(0, index - half) : index + half + 1] if math.isfinite(v)]
        means.append(statistics.fmean(near) if near else math.nan)
    return means


def _role_phases(data: RunData) -> list[tuple[int, str, list[StepMetrics]]]:
    phases = []
    for round_ in sorted({m.key.round for m in data.metrics}):
        for phase, role, _ in ROLES:
            if steps := [s for s in data.steps(phase) if s.key.round == round_]:
                phases.append((round_, role, steps))
    return phases


def _phase_row(round_: int, role: str, steps: Sequence[StepMetrics]) -> list[str]:
    def values(name: str) -> list[float]:
        return [v for s in steps if (v := value_of(s, name)) is not None]

    def pick(name: str, how: str) -> float | None:
        found = values(name)
        if not found:
            return None
        return {"last": found[-1], "max": max(found), "mean": statistics.fmean(found)}[how]

    rewards = values("reward/mean")
    quarter = max(1, len(rewards) // 4)
    equal = sum(values("groups/zero_variance"))
    groups = equal + sum(values("groups/used")) + sum(values("groups/missing"))
    ends = [statistics.fmean(part) for part in (rewards[:quarter], rewards[-quarter:]) if part]
    return [
        f"{round_}, {role}",
        str(len(steps)),
        " → ".join(f"{v:.3f}" for v in ends) or "-",
        number(pick("train/kl", "last"), 4),
        number(pick("train/grad_norm", "max"), 2),
        number(pick("train/clip_fraction", "mean"), 4),
        number(pick("mismatch/ratio", "max"), 4),
        number(equal / groups if groups else None),
        number(pick("generate/mean_tokens", "mean"), 1),
        count(pick("generate/tokens_per_s", "mean")),
        count(sum(missing) if (missing := values("reward/missing")) else None),
    ]


def _frequent(round_: int, rows: Sequence[tuple[str, ...]]) -> Html:
    """The constraints that stand in the most rows of a round's q.parquet."""
    counts = Counter(text for row in rows for text in set(row))
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_FREQUENT]
    cells = [[words(clip(text, 300)), f"{n:,}", number(n / len(rows))] for text, n in top]
    heading = f"Round {round_}: most frequent of {len(counts):,} constraints in {len(rows):,} instructions"
    return tag("div", tag("h3", heading), table(["constraint", "instructions", "share"], cells))


def _seconds(steps: Sequence[StepMetrics]) -> float | None:
    found = [v for s in steps if (v := value_of(s, "time_s/total")) is not None]
    return sum(found) if found else None


def _time_bar(phase: Phase, steps: Sequence[StepMetrics], divisor: float) -> Bar:
    """A phase kind's time by part, in units of `divisor` seconds."""
    total = _seconds(steps) or 0.0
    names = {n.removeprefix("time_s/") for s in steps for n in s.values if n.startswith("time_s/")} - {"total"}
    ordered = [n for n in _PARTS if n in names] + sorted(names - set(_PARTS))
    segments = []
    for name in ordered:
        spent = sum(v for s in steps if (v := value_of(s, f"time_s/{name}")) is not None)
        segments.append(Segment(name, f"c-{_PARTS[name]}" if name in _PARTS else "c-brown", spent / divisor))
    rest = total / divisor - sum(s.value for s in segments)
    segments.append(Segment("other", "c-slate", max(0.0, rest)))
    return Bar(_SHORT_PHASES[phase], tuple(segments), format_duration(total))
