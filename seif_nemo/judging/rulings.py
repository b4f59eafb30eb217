"""Verdicts on tasks, rules first, and how a verdict is written in JSON.

Specs are judged by their rule alone. Texts are judged as in training: by the rule where it can say all of it, else by
the model, else not at all. A text that is no constraint ("She wrote a book.") has no verdict, and nobody is asked.
"""

import json
from collections.abc import Sequence
from dataclasses import replace

from seif_nemo.config.reward import Judging
from seif_nemo.constraints import ifeval_rules
from seif_nemo.constraints.verify import refuse, verify
from seif_nemo.judging.tasks import Demand, Task
from seif_nemo.roles.judger import AskQuestions, Judger
from seif_nemo.types.constraints import Definition, Instruction, Reading, Spec
from seif_nemo.types.verdicts import Outcome, Score, Source, Verdict, Why

_NO_CONSTRAINT = Verdict(Outcome.MISSING, Source.RULE, "not a constraint", Why.NO_RULE)


def judge_tasks(tasks: Sequence[Task], *, ask: AskQuestions | None = None, loose: bool = False) -> list[Score]:
    """One Score per task with one verdict per demand. All questions to the model go out in one call.

    `loose` accepts the specs of an instruction id, or one given as such, if one of `ifeval_rules.loose_variants`
    satisfies them; texts are judged strictly.
    """
    rows = [[_by_specs(task, demand, loose=loose) for demand in task.demands] for task in tasks]
    open_rows = [index for index, row in enumerate(rows) if None in row]
    if open_rows:
        mode = Judging.rules if ask is None else Judging.rules_then_model
        scores = Judger(mode=mode, ask=ask).judge([_instruction(tasks[index]) for index in open_rows])
        for index, score in zip(open_rows, scores, strict=True):
            verdicts = iter(score.verdicts)
            rows[index] = [next(verdicts) if verdict is None else verdict for verdict in rows[index]]
    return [Score(tuple(verdict for verdict in row if verdict is not None)) for row in rows]


def is_undecided(demand: Demand) -> bool:
    """Whether rules alone may leave this demand without a verdict."""
    return demand.constraint is not None and not demand.constraint.is_covered


def score_line(index: int, score: Score | None, error: str | None) -> bytes:
    """One line of JSON: {"index", "verdicts", "follow_rate", "error"}. "source" is null if nobody was asked."""
    verdicts = [
        {
            "verdict": verdict.outcome.value,
            "source": None if verdict.why is Why.NO_RULE else verdict.source.value,
            "evidence": verdict.evidence,
        }
        for verdict in (score.verdicts if score is not None else ())
    ]
    follow_rate = None if score is None else score.follow_rate
    row = {"index": index, "verdicts": verdicts, "follow_rate": follow_rate, "error": error}
    # Half of a surrogate pair is no UTF-8; the backslash form of it is the same character in JSON.
    return json.dumps(row, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"


def _by_specs(task: Task, demand: Demand, *, loose: bool) -> Verdict | None:
    """None where the Judger has to say."""
    if demand.constraint is not None:
        return _NO_CONSTRAINT if demand.constraint.reading is Reading.NOT_A_CONSTRAINT else None
    strict = _all_of(task, demand, task.response)
    if not loose or strict.outcome is Outcome.PASSED:
        return strict
    for variant in ifeval_rules.loose_variants(task.response):
        verdict = _all_of(task, demand, variant)
        if verdict.outcome is Outcome.PASSED:
            return replace(verdict, evidence=f"loose: {verdict.evidence}")
    return strict


def _all_of(task: Task, demand: Demand, response: str) -> Verdict:
    """The first verdict that is not a pass, else one with the evidence of all."""
    verdicts: list[Verdict] = []
    for spec in demand.specs:
        verdict = _by_rule(spec, task, response)
        if verdict.outcome is not Outcome.PASSED:
            return verdict
        verdicts.append(verdict)
    return replace(verdicts[0], evidence="; ".join(verdict.evidence for verdict in verdicts))


def _by_rule(spec: Spec, task: Task, response: str) -> Verdict:
    if spec.definition is Definition.OURS:  # IFEval's own checkers accept an echo
        refusal = refuse(response, questions=(task.seed_question, task.prompt))
        if refusal is not None:
            return Verdict(Outcome.FAILED, Source.RULE, refusal)
    return verify(spec, response, seed_question=task.seed_question)


def _instruction(task: Task) -> tuple[Instruction, str]:
    """What the Judger is to judge: the texts that are constraints."""
    constraints = tuple(
        demand.constraint
        for demand in task.demands
        if demand.constraint is not None and demand.constraint.reading is not Reading.NOT_A_CONSTRAINT
    )
    seed = task.seed_question or task.prompt
    return Instruction(seed, constraints, task.prompt or seed), task.response
