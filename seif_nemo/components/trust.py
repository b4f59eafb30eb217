"""How far a judge can be trusted, measured on what rules can decide."""

from collections.abc import Sequence
from dataclasses import dataclass

from seif_nemo.constraints.verify import refuse
from seif_nemo.data.streams import derive_seed, permutation
from seif_nemo.types.constraints import Instruction
from seif_nemo.types.questions import Question
from seif_nemo.types.verdicts import Outcome, Score, Source, Verdict


@dataclass(frozen=True, slots=True)
class Checked:
    """A question with the rule's answer."""

    question: Question
    passed: bool


def sample_checkable(
    scored: Sequence[tuple[Sequence[tuple[Instruction, str]], Sequence[Score]]], *, count: int, seed: int
) -> list[Checked]:
    """Up to `count` distinct questions that a rule has decided in full, half of them failed if there are so many.

    Both rates are shares of their own half, so evening out the halves does not bias them. Responses that say nothing
    are left out: there is no constraint to check on them. `scored` are batches of (instruction, response) pairs with
    the scores of each.
    """
    found: dict[Question, bool] = {}
    pairs = [pair for items, scores in scored for pair in zip(items, scores, strict=True)]
    for (instruction, response), score in pairs:
        if refuse(response, questions=(instruction.seed, instruction.prompt)) is not None:
            continue
        for constraint, verdict in zip(instruction.constraints, score.verdicts, strict=True):
            if constraint.is_covered and verdict.source is Source.RULE and verdict.outcome is not Outcome.MISSING:
                question = Question(instruction.seed, constraint.text, response)
                found[question] = verdict.outcome is Outcome.PASSED
    passed = _shuffled([Checked(q, True) for q, ok in found.items() if ok], derive_seed(seed, "passed"))
    failed = _shuffled([Checked(q, False) for q, ok in found.items() if not ok], derive_seed(seed, "failed"))
    num_failed = min(len(failed), max(count // 2, count - len(passed)))
    return failed[:num_failed] + passed[: count - num_failed]


def trust_values(checked: Sequence[Checked], verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Metrics of a judge's verdicts on checked questions; a rate only where there is something to divide by.

    False pass rate: passed by the judge, of what fails by rule and got a verdict. False fail rate: the reverse.
    """
    judged = [
        (each.passed, verdict.outcome is Outcome.PASSED)
        for each, verdict in zip(checked, verdicts, strict=True)
        if verdict.outcome is not Outcome.MISSING
    ]
    values = {
        "judge/meter_questions": float(len(checked)),
        "judge/meter_missing": float(len(checked) - len(judged)),
    }
    for name, truth in (("judge/false_pass_rate", False), ("judge/false_fail_rate", True)):
        wrong = [said is not truth for passed, said in judged if passed is truth]
        if wrong:
            values[name] = sum(wrong) / len(wrong)
    return values


def _shuffled(checked: Sequence[Checked], seed: int) -> list[Checked]:
    return [checked[index] for index in permutation(len(checked), seed)]
