"""Text of the models: held-out answers side by side, the Instructor's outputs, what the gate refused."""

from collections.abc import Sequence

from seif_nemo.observability.report.loading import EvaluationSample, ProbeSample, RejectedRow, RunData
from seif_nemo.observability.report.markup import Child, Html, clip, tag
from seif_nemo.observability.report.parts import not_yet, section, table, words
from seif_nemo.observability.report.training import reason_name
from seif_nemo.types.verdicts import Outcome, Verdict

_SHOWN_PROMPTS, _SHOWN_PROBES = 12, 6
_PROMPT_LIMIT, _ANSWER_LIMIT, _LINE_LIMIT = 2000, 4000, 400  # characters
_MARKS = {Outcome.PASSED: "✓ passed", Outcome.FAILED: "✗ failed", Outcome.MISSING: "? missing"}


def samples_section(data: RunData) -> Html:
    """The same held-out prompts, answered in the first and in the last evaluated round."""
    heading = "Held-out answers side by side"
    rounds = [files for files in data.rounds if files.evaluation]
    if not rounds:
        lead = "Answers to held-out prompts, with a mark for each constraint."
        return section("samples", heading, lead, not_yet("no evaluation has written its answers."))
    first, last = rounds[0], rounds[-1]
    columns: list[tuple[int, dict[str, EvaluationSample]]] = []
    for files in (first, last) if first is not last else (first,):
        by_prompt: dict[str, EvaluationSample] = {}
        for sample in files.evaluation or ():
            by_prompt.setdefault(sample.prompt, sample)
        columns.append((files.round, by_prompt))
    prompts = [p for p in columns[0][1] if all(p in by_prompt for _, by_prompt in columns)]
    chosen = _evenly(prompts, _SHOWN_PROMPTS)
    lead = (
        f"{len(chosen)} of {len(prompts):,} prompts, evenly spaced in the held-out file and not picked by result. "
        + _movement(columns, prompts)
    )
    cards = [_prompt_card([(round_, by_prompt[prompt]) for round_, by_prompt in columns]) for prompt in chosen]
    return section("samples", heading, lead, cards)


def instructor_section(data: RunData) -> Html:
    """The same seeds, given to the Instructor before its first and after its last phase; then what the gate refused."""
    heading = "What the Instructor writes"
    lead = (
        "The same seed question before the Instructor's first phase and after its last one, evenly spaced, not picked."
    )
    before = next(((files.round, files.probe_before) for files in data.rounds if files.probe_before), None)
    after = next(((files.round, files.probe_after) for files in reversed(data.rounds) if files.probe_after), None)
    body: list[Child] = []
    if before is None and after is None:
        body.append(not_yet("no probe has written its outputs."))
    else:
        columns = [
            (f"{when} the phase of round {found[0]}", _by_seed(found[1]))
            for when, found in (("before", before), ("after", after))
            if found is not None
        ]
        seeds = [s for s in columns[0][1] if all(s in by_seed for _, by_seed in columns)]
        body += [
            _probe_card(s, [(label, by_seed[s]) for label, by_seed in columns]) for s in _evenly(seeds, _SHOWN_PROBES)
        ]
    refused = next(((files.round, files.rejected) for files in reversed(data.rounds) if files.rejected), None)
    if refused is not None:
        body += _refused(*refused)
    return section("instructor", heading, lead, body)


def _evenly(items: Sequence[str], wanted: int) -> list[str]:
    """At most `wanted` items, evenly spaced, the first one included."""
    if len(items) <= wanted:
        return list(items)
    return [items[index * len(items) // wanted] for index in range(wanted)]


def _movement(columns: Sequence[tuple[int, dict[str, EvaluationSample]]], prompts: Sequence[str]) -> str:
    """How many prompts went up and down between the two rounds; empty for one round."""
    if len(columns) < 2:
        return ""
    (_, first), (_, last) = columns
    pairs = [(first[p].score, last[p].score) for p in prompts]
    gains = [b - a for a, b in pairs if a is not None and b is not None]
    up, down = sum(g > 0 for g in gains), sum(g < 0 for g in gains)
    return f"Of all: {up:,} follow more constraints than at first, {down:,} fewer, {len(gains) - up - down:,} as many."


def _prompt_card(columns: Sequence[tuple[int, EvaluationSample]]) -> Html:
    sample = columns[0][1]
    answers = [
        tag("div", tag("h4", f"Round {round_} · {_tally(one.verdicts)}"), _said(one.response))
        for round_, one in columns
    ]
    rows = []
    for index, constraint in enumerate(sample.constraints):
        marks = [_mark(one.verdicts[index] if index < len(one.verdicts) else None) for _, one in columns]
        rows.append([words(clip(constraint, _LINE_LIMIT)), *marks])
    head = ["constraint", *(f"round {round_}" for round_, _ in columns)]
    return tag(
        "div",
        tag("div", clip(sample.seed_question or sample.prompt, _PROMPT_LIMIT), class_="asked", dir="auto"),
        tag("div", answers, class_="pair"),
        table(head, rows),
        class_="card sample",
    )


def _tally(verdicts: Sequence[Verdict]) -> str:
    passed = sum(v.outcome is Outcome.PASSED for v in verdicts)
    missing = sum(v.outcome is Outcome.MISSING for v in verdicts)
    return f"{passed} of {len(verdicts)} followed" + (f", {missing} without a verdict" if missing else "")


def _mark(verdict: Verdict | None) -> Html:
    if verdict is None:
        return tag("td", "-")
    why = clip(verdict.evidence, _LINE_LIMIT)
    return tag(
        "td",
        tag("span", _MARKS[verdict.outcome], class_=f"mark {verdict.outcome.value}"),
        tag("div", f"by {verdict.source.value}{': ' if why else ''}{why}", class_="why", dir="auto"),
    )


def _said(text: str) -> Html:
    return tag("div", clip(text, _ANSWER_LIMIT) or "(empty)", class_="said", dir="auto")


def _by_seed(samples: Sequence[ProbeSample] | None) -> dict[str, ProbeSample]:
    found: dict[str, ProbeSample] = {}
    for sample in samples or ():
        found.setdefault(sample.seed_question, sample)
    return found


def _probe_card(seed: str, columns: Sequence[tuple[str, ProbeSample]]) -> Html:
    parts = []
    for label, sample in columns:
        if sample.reason is not None:
            verdict = f"refused: {reason_name(sample.reason)}"
        elif sample.follow_rate is None:
            verdict = "kept; no verdict on the frozen Follower's answer"
        else:
            verdict = f"kept; the frozen Follower follows {sample.follow_rate:.2f}"
        written = sample.raw if sample.constraints is None else "\n".join(f"• {c}" for c in sample.constraints)
        parts.append(tag("div", tag("h4", f"{label} · {verdict}"), _said(written)))
    seed_text = tag("div", clip(seed, _PROMPT_LIMIT), class_="asked", dir="auto")
    return tag("div", seed_text, tag("div", parts, class_="pair"), class_="card probe")


def _refused(round_: int, rejected: Sequence[RejectedRow]) -> list[Html]:
    """The first refused output of each reason."""
    examples: dict[str, RejectedRow] = {}
    for row in rejected:
        examples.setdefault(row.reason, row)
    rows = [
        [reason_name(reason), words(clip(row.detail, _LINE_LIMIT)), words(clip(row.raw, _LINE_LIMIT))]
        for reason, row in sorted(examples.items())
    ]
    heading = f"Refused by the gate in round {round_}: the first of each reason, of {len(rejected):,}"
    return [tag("h3", heading), table(["reason", "detail", "what the Instructor wrote"], rows)]
