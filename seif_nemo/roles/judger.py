"""The Judger: does a response satisfy a constraint? Rules first, the frozen evaluator for what no rule covers.

Rules decide where the parser read a text completely. Where it read a part (NECESSARY), a failing rule decides and a
passing one hands on to the model. The model is asked about one constraint at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from seif_nemo.config.reward import Judging
from seif_nemo.constraints.verify import refuse, verify
from seif_nemo.data.streams import derive_seed
from seif_nemo.protocols.judging import AskModel
from seif_nemo.protocols.tokenizer import Message
from seif_nemo.roles.prompts import JudgerTemplate, fill, secret_code, without_code
from seif_nemo.roles.verdict_text import last_verdict
from seif_nemo.types.constraints import Constraint, Instruction, Reading
from seif_nemo.types.verdicts import Outcome, Score, Source, Verdict

_YES, _NO = "yes", "no"
_EVIDENCE_CHARACTERS = 200  # of the judge's text, from its end


@dataclass(frozen=True, slots=True)
class _Question:
    """One call to the model: which item and constraint it is about, and its own seed."""

    item: int
    constraint: int
    seed: int


def judger_messages(
    template: JudgerTemplate, *, seed_question: str, constraint: str, response: str, seed: int
) -> list[Message]:
    """The chat about one constraint. `seed` decides the code that fences the texts in and that the verdict carries."""
    code = secret_code(seed)
    user = fill(
        template.user,
        seed=without_code(seed_question, code),
        constraint=without_code(constraint, code),
        response=without_code(response, code),
        code=code,
    )
    return [Message("system", template.system), Message("user", user)]


def parse_judgement(text: str | None, *, seed: int) -> Verdict:
    """The last verdict with the code of `seed`; MISSING without one. None stands for an answer that never came."""
    if text is None:
        return Verdict(Outcome.MISSING, Source.MODEL, "no answer")
    word = last_verdict(text, code=secret_code(seed), words=(_YES, _NO))
    outcome = Outcome.MISSING if word is None else Outcome.PASSED if word == _YES else Outcome.FAILED
    return Verdict(outcome, Source.MODEL, text.strip()[-_EVIDENCE_CHARACTERS:])


class Judger:
    """`ask` answers chats of the evaluator; it may be None where `mode` is rules. Stateless between calls."""

    def __init__(self, *, mode: Judging, ask: AskModel | None, template: JudgerTemplate) -> None:
        if mode is Judging.rules_then_model and ask is None:
            raise ValueError("reward.judging=rules_then_model needs a model to ask; use rules without one")
        self._ask = ask if mode is Judging.rules_then_model else None
        self._template = template

    def judge(self, items: Sequence[tuple[Instruction, str]], *, seeds: Sequence[int]) -> list[Score]:
        """One Score per (instruction, response), with one verdict per constraint. One seed per item.

        All questions to the model go out in one call, item by item and constraint by constraint. Raises ValueError if
        the numbers of items and seeds, or of questions and answers, differ.
        """
        if len(items) != len(seeds):
            raise ValueError(f"{len(items)} items but {len(seeds)} seeds")
        verdicts = [
            [_by_rule(c, instruction, response) for c in instruction.constraints] for instruction, response in items
        ]
        questions = [
            _Question(i, j, derive_seed(seeds[i], "judge", j))
            for i, row in enumerate(verdicts)
            for j, verdict in enumerate(row)
            if verdict is None
        ]
        for question, verdict in zip(questions, self._by_model(items, questions), strict=True):
            verdicts[question.item][question.constraint] = verdict
        return [Score(tuple(_present(verdict) for verdict in row)) for row in verdicts]

    def _by_model(self, items: Sequence[tuple[Instruction, str]], questions: Sequence[_Question]) -> list[Verdict]:
        if self._ask is None:
            return [Verdict(Outcome.MISSING, Source.RULE, "no rule covers all of it")] * len(questions)
        if not questions:
            return []
        chats = [
            judger_messages(
                self._template,
                seed_question=items[q.item][0].seed,
                constraint=items[q.item][0].constraints[q.constraint].text,
                response=items[q.item][1],
                seed=q.seed,
            )
            for q in questions
        ]
        answers = self._ask(chats, seeds=[q.seed for q in questions])
        if len(answers) != len(questions):
            raise ValueError(f"{len(questions)} questions but {len(answers)} answers of the judge")
        return [parse_judgement(answer, seed=q.seed) for q, answer in zip(questions, answers, strict=True)]


def _by_rule(constraint: Constraint, instruction: Instruction, response: str) -> Verdict | None:
    """The rule's verdict where it is final, None where the model has to say."""
    refusal = refuse(response, questions=(instruction.seed, instruction.prompt))
    if refusal is not None:
        return Verdict(Outcome.FAILED, Source.RULE, refusal)
    if constraint.spec is None:
        return None
    verdict = verify(constraint.spec, response, seed_question=instruction.seed)
    is_final = constraint.reading is Reading.EQUIVALENT or verdict.outcome is Outcome.FAILED
    return verdict if is_final else None


def _present(verdict: Verdict | None) -> Verdict:
    assert verdict is not None
    return verdict
