"""What came out: header, held-out follow rate, kinds of constraints, the Instructor's difficulty."""

import math
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from seif_nemo.observability.metrics import latest
from seif_nemo.observability.report.charts import Dumbbell, Series, as_rate, dumbbells, line_chart
from seif_nemo.observability.report.loading import EvaluationSample, RunData
from seif_nemo.observability.report.markup import Html, tag
from seif_nemo.observability.report.parts import change, count, heat, not_yet, number, section, table
from seif_nemo.observability.summary import PHASE_NAMES, format_duration, summarise_rounds, value_of
from seif_nemo.types.records import Phase, StepMetrics

_SILENCE_S = 3600.0  # without a step for this long, a run is called stopped
_BEFORE_MERGE = (Phase.PROBE_AFTER, Phase.SYNTHESIS)  # phases of the last step before the gate can stop a run
_STEPPED = (Phase.INSTRUCTOR, Phase.FOLLOWER)


@dataclass(frozen=True, slots=True)
class EvaluatedRound:
    """The held-out evaluation after a round. The error is the standard error of the mean over prompts."""

    round: int
    follow_rate: float
    error: float | None
    strict_rate: float | None
    num_answers: float | None
    missing: float | None  # answers without a verdict on each constraint; they are in no rate
    mean_tokens: float | None
    scores: tuple[float, ...]  # per prompt in the order of `prompts`; empty where the samples do not give the rate
    prompts: tuple[tuple[str, int], ...]  # text and how many of the same came before


def evaluated_rounds(data: RunData) -> list[EvaluatedRound]:
    """All evaluated rounds, in order."""
    rows: list[EvaluatedRound] = []
    for step in data.steps(Phase.EVALUATION):
        rate = value_of(step, "eval/follow_rate")
        if rate is None:
            continue
        files = data.files(step.key.round)
        prompts, scores = _scores((files.evaluation if files else None) or ())
        num_answers, missing = value_of(step, "eval/num_responses"), value_of(step, "eval/missing")
        # The rate is over answers: prompts that lost some of theirs weigh less in it than in the mean over prompts.
        spread = missing / (num_answers - missing) if num_answers and missing else 0.0
        if not scores or abs(statistics.fmean(scores) - rate) > 1e-4 + spread:  # a part of it, or of another attempt
            prompts, scores = (), ()
        rows.append(
            EvaluatedRound(
                round=step.key.round,
                follow_rate=rate,
                error=_standard_error(scores),
                strict_rate=value_of(step, "eval/strict_rate"),
                num_answers=num_answers,
                missing=missing,
                mean_tokens=value_of(step, "eval/mean_tokens"),
                scores=scores,
                prompts=prompts,
            )
        )
    return rows


def gain_error(first: EvaluatedRound, last: EvaluatedRound) -> float | None:
    """Standard error of the mean gain per prompt. None unless both rounds scored the same prompts."""
    if not first.scores or Counter(first.prompts) != Counter(last.prompts):
        return None
    before = dict(zip(first.prompts, first.scores, strict=True))
    gains = [score - before[prompt] for prompt, score in zip(last.prompts, last.scores, strict=True)]
    return _standard_error(gains)


def header(data: RunData, now: float) -> Html:
    """Name, state and the four numbers that matter most. `now` is Unix time."""
    rounds = evaluated_rounds(data)
    summaries = summarise_rounds(data.metrics)
    tiles = [_rate_tile(rounds), _gain_tile(rounds)]
    probed = [r for r in summaries if r.difficulty_before is not None or r.difficulty_after is not None]
    if probed:
        value = f"{number(probed[-1].difficulty_before, 2)} → {number(probed[-1].difficulty_after, 2)}"
        tiles.append(_tile("Instructor difficulty", value, f"before → after the phase of round {probed[-1].round}"))
    else:
        tiles.append(_tile("Instructor difficulty", "not yet", "no probe is finished"))
    seconds = [r.seconds for r in summaries if r.seconds is not None]
    planned = "" if data.planned_rounds is None else f" of {data.planned_rounds}"
    spent = format_duration(sum(seconds)) if seconds else "no time was recorded"
    tiles.append(_tile("Rounds done", f"{data.rounds_done}{planned}", f"wall time in steps: {spent}"))
    color, state, about = _state(data, now)
    return tag(
        "header",
        tag("div", "SEIF run", class_="eyebrow"),
        tag("h1", data.name),
        tag("div", tag("span", state, class_=f"state {color}"), tag("span", about, class_="soft")),
        tag("div", tiles, class_="tiles"),
        [tag("p", notice, class_="notice") for notice in data.notices],
    )


def follow_rate_section(data: RunData) -> Html:
    lead = (
        "Share of the constraints of a held-out prompt that its answer satisfies, averaged over prompts. Round 0 is "
        "the base model. Bars and ± are one standard error over prompts."
    )
    rounds = evaluated_rounds(data)
    heading = "Held-out follow rate"
    if not rounds:
        why = (
            "the evaluation had no held-out prompts." if data.steps(Phase.EVALUATION) else "no evaluation is finished."
        )
        return section("follow-rate", heading, lead, not_yet(why))
    errors = tuple(r.error for r in rounds)
    rate = Series("follow rate", "c-follower", tuple((r.round, r.follow_rate) for r in rounds), errors, labels=1)
    strict_points = tuple((r.round, r.strict_rate) for r in rounds if r.strict_rate is not None)
    series = (
        [rate, Series("all constraints of a prompt", "c-aqua", strict_points, labels=-1)] if strict_points else [rate]
    )
    chart = line_chart(
        "Held-out follow rate per round",
        series,
        x_label="round",
        x_ticks=[r.round for r in rounds],
        limits=(0, 1),
        number=as_rate,
    )
    earlier = [None, *rounds]
    rows = [
        [
            str(r.round),
            number(r.follow_rate),
            number(r.error),
            change(None if before is None else r.follow_rate - before.follow_rate),
            number(r.strict_rate),
            count(r.num_answers),
            count(r.missing),
            number(r.mean_tokens, 1),
        ]
        for r, before in zip(rounds, earlier, strict=False)
    ]
    head = ["round", "follow rate", "±", "change", "all constraints", "answers", "without verdict", "tokens per answer"]
    return section("follow-rate", heading, lead, tag("div", chart, table(head, rows), class_="grid"))


def kinds_section(data: RunData) -> Html:
    lead = "Share of satisfied constraints by kind, on the held-out prompts. The darker, the nearer to 1."
    heading = "Follow rate by kind of constraint"
    steps = [s for s in data.steps(Phase.EVALUATION) if any(name.startswith("eval/kind/") for name in s.values)]
    if not steps:
        return section("kinds", heading, lead, not_yet("no evaluation by kind is finished."))
    counts: dict[str, float] = {}
    for step in steps:
        for name in step.values:
            if name.startswith("eval/kind/"):
                kind = name.removeprefix("eval/kind/")
                counts[kind] = value_of(step, f"eval/kind_count/{kind}") or counts.get(kind, 0.0)
    rows = []
    for kind in sorted(counts, key=lambda k: (-counts[k], k)):
        rates = [value_of(step, f"eval/kind/{kind}") for step in steps]
        first, last = rates[0], rates[-1]
        difference = None if len(rates) < 2 or first is None or last is None else last - first
        rows.append([kind.replace("_", " "), count(counts[kind]), *map(heat, rates), change(difference, 2)])
    head = ["kind", "constraints", *(f"round {s.key.round}" for s in steps), "change"]
    return section("kinds", heading, lead, table(head, rows))


def difficulty_section(data: RunData) -> Html:
    lead = (
        "1 − follow rate of the frozen Follower on fresh instructions, before and after each Instructor phase: the "
        "phase worked if the dot is right of the ring. Harder is only better while the gate keeps as large a share."
    )
    heading = "Instructor difficulty"
    rows, pairs = [], []
    for round_ in sorted({s.key.round for phase in (Phase.PROBE_BEFORE, Phase.PROBE_AFTER) for s in data.steps(phase)}):
        steps = [latest(data.metrics, round_, phase) for phase in (Phase.PROBE_BEFORE, Phase.PROBE_AFTER)]
        before, after = (value_of(step, "probe/difficulty") for step in steps)
        pairs.append(Dumbbell(f"Round {round_}", before, after))
        shares = [
            " → ".join(number(value_of(step, f"probe/{name}"), 2) for step in steps)
            for name in ("parse_share", "kept_share", "conflict_share")
        ]
        difference = None if before is None or after is None else after - before
        rows.append([str(round_), number(before), number(after), change(difference), *shares])
    if not rows:
        return section("difficulty", heading, lead, not_yet("no probe of the Instructor is finished."))
    head = ["round", "before", "after", "change", "parsed", "kept by the gate", "in conflict"]
    chart = dumbbells("Difficulty before and after each Instructor phase", pairs, x_label="difficulty")
    return section("difficulty", heading, lead, tag("div", chart, table(head, rows), class_="grid"))


def _state(data: RunData, now: float) -> tuple[str, str, str]:
    """Colour, word and explanation of the run's state."""
    if not data.metrics:
        return "c-slate", "no steps yet", "metrics.jsonl has no finished step."
    last_step = data.metrics[-1]
    last_time = max(m.time_s for m in data.metrics)
    written = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(last_time))
    if data.planned_rounds is not None and data.rounds_done >= data.planned_rounds:
        return "c-aqua", "finished", f"All {data.planned_rounds} rounds are done; the last step ended {written}."
    key = last_step.key
    name = PHASE_NAMES[key.phase]
    where = f"Last step: round {key.round}, {name[0].lower()}{name[1:]}"
    if key.phase in _STEPPED:
        steps = sum((m.key.round, m.key.phase) == (key.round, key.phase) for m in data.metrics)
        where += f" ({steps} step{'s' if steps != 1 else ''} done)"
    if (about := _stopped_at_gate(data, last_step)) is not None:
        return "c-red", "stopped at the gate", about
    silence = now - last_time
    if silence > _SILENCE_S:
        return "c-red", "stopped", f"{where}, ended {written}; nothing in the {format_duration(silence)} since."
    return "c-blue", "running", f"{where}, ended {written}."


def _stopped_at_gate(data: RunData, last_step: StepMetrics) -> str | None:
    """Says what was kept if the round's tables are there but the step that writes them did not end."""
    key, files = last_step.key, data.files(last_step.key.round)
    merged = value_of(last_step, "synthesis/kept") is not None
    if key.phase not in _BEFORE_MERGE or merged or files is None or files.kept is None or files.rejected is None:
        return None
    counts = Counter(row.reason for row in files.rejected).most_common()
    reasons = ", ".join(f"{reason.replace('_', ' ')} {number}" for reason, number in counts)
    asked = len(files.kept) + len(files.rejected)
    return f"Round {key.round}: the gate kept {len(files.kept)} of {asked} ({reasons})."


def data_section(data: RunData) -> Html:
    lead = "Rows of the input files that are used, and why the others are not. Nothing is cut to fit."
    first = latest(data.metrics, 0, Phase.EVALUATION)
    counts = {name.removeprefix("data/"): n for name, n in (first.values if first else {}).items() if "data/" in name}
    if not counts:
        return section("data", "Data", lead, not_yet("no evaluation is finished."))
    names = list(dict.fromkeys(name.split("/")[0] for name in counts))
    reasons = list(dict.fromkeys(name.split("/")[1] for name in counts))
    rows = [[name, *(count(counts.get(f"{name}/{reason}")) for reason in reasons)] for name in names]
    return section("data", "Data", lead, table(["rows", *reasons], rows))


def _rate_tile(rounds: Sequence[EvaluatedRound]) -> Html:
    if not rounds:
        return _tile("Held-out follow rate", "not yet", "no evaluation is finished")
    last = rounds[-1]
    error = "" if last.error is None else f" ± {last.error:.3f}"
    return _tile("Held-out follow rate", f"{last.follow_rate:.3f}", f"after round {last.round}{error}")


def _gain_tile(rounds: Sequence[EvaluatedRound]) -> Html:
    if len(rounds) < 2:
        return _tile("Gain", "not yet", "needs two evaluated rounds")
    first, last = rounds[0], rounds[-1]
    error = gain_error(first, last)
    about = f"round {first.round} to {last.round}" + ("" if error is None else f"; ± {error:.3f}, paired by prompt")
    return _tile("Gain", f"{last.follow_rate - first.follow_rate:+.3f}", about)


def _tile(name: str, value: str, about: str) -> Html:
    return tag(
        "div",
        tag("div", name, class_="name"),
        tag("div", value, class_="number"),
        tag("div", about, class_="about"),
        class_="tile",
    )


def _scores(samples: Sequence[EvaluationSample]) -> tuple[tuple[tuple[str, int], ...], tuple[float, ...]]:
    seen: Counter[str] = Counter()
    prompts: list[tuple[str, int]] = []
    scores: list[float] = []
    for sample in samples:
        place = seen[sample.prompt]
        seen[sample.prompt] += 1
        if (score := sample.follow_rate) is not None:
            prompts.append((sample.prompt, place))
            scores.append(score)
    return tuple(prompts), tuple(scores)


def _standard_error(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
