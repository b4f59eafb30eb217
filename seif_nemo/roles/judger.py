"""The Judger: does a response satisfy a constraint? Rules first, a model for what no rule covers.

Rules decide where the parser read a text completely. Where it read a part (NECESSARY), a failing rule decides and a
passing one hands on to the model. The model is asked about one constraint at a time.

Every text that somebody else wrote stands between lines with a code, and a verdict must carry that code. The code is a
hash of the run's seed and of the whole question: the same question always has the same one, and no response can hold
its own.
"""

from collections.abc import Callable, Mapping, Sequence

from seif_nemo.config.reward import Judging
from seif_nemo.constraints.verify import refuse, verify
from seif_nemo.data.streams import derive_seed
from seif_nemo.protocols.tokenizer import Message
from seif_nemo.roles.prompts import JudgerTemplate, fill, secret_code, without_code
from seif_nemo.roles.verdict_text import last_verdict, verdict_opening
from seif_nemo.types.constraints import Constraint, Instruction
from seif_nemo.types.questions import Question
from seif_nemo.types.verdicts import Outcome, Score, Source, Verdict, Why

YES, NO = "yes", "no"
WORDS = (YES, NO)
_EVIDENCE_CHARACTERS = 200  # of the judge's text, from its end

AskQuestions = Callable[[Sequence[Question]], list[Verdict]]
Item = tuple[Instruction, str]  # with a response to it
RuleVerdicts = Sequence[Verdict | None]  # one per constraint; None where the model has to say


def question_seed(run_seed: int, question: Question) -> int:
    """The seed of all that is random about one question: its code and, if the judge samples, its answer."""
    return derive_seed(run_seed, "judge", question.seed_question, question.constraint, question.response)


def judger_messages(template: JudgerTemplate, question: Question, *, seed: int, direct: bool = False) -> list[Message]:
    """The chat about one constraint. `seed` decides the code. `direct` asks for the verdict alone."""
    code = secret_code(seed)
    user = fill(
        template.direct if direct else template.user,
        seed=without_code(question.seed_question, code),
        constraint=without_code(question.constraint, code),
        response=without_code(question.response, code),
        code=code,
    )
    return [Message("system", template.system), Message("user", user)]


def forced_opening(seed: int) -> str:
    """How a judge's answer starts if it is the verdict alone: up to the word."""
    return verdict_opening(secret_code(seed))


def model_missing(why: Why, evidence: str) -> Verdict:
    """No verdict of the model, for this reason."""
    return Verdict(Outcome.MISSING, Source.MODEL, evidence, why)


def parse_judgement(text: str, *, seed: int) -> Verdict:
    """The last verdict with the code of `seed`; MISSING without one."""
    word = last_verdict(text, code=secret_code(seed), words=WORDS)
    evidence = text.strip()[-_EVIDENCE_CHARACTERS:]
    if word is None:
        return model_missing(Why.UNPARSABLE, evidence or "empty answer")
    return Verdict(Outcome.PASSED if word == YES else Outcome.FAILED, Source.MODEL, evidence)


def judge_probability(yes: float, *, margin: float) -> Verdict:
    """The verdict of P(yes) / (P(yes) + P(no)); MISSING closer than `margin` to one half."""
    assert 0 <= yes <= 1, yes
    evidence = f"P(yes) = {yes:.3f}"
    if abs(yes - 0.5) < margin or yes == 0.5:
        return model_missing(Why.UNDECIDED, evidence)
    return Verdict(Outcome.PASSED if yes > 0.5 else Outcome.FAILED, Source.MODEL, evidence)


class Judger:
    """`ask` puts questions to a model; it may be None where `mode` is rules. Stateless between calls."""

    def __init__(self, *, mode: Judging, ask: AskQuestions | None) -> None:
        if mode is Judging.rules_then_model and ask is None:
            raise ValueError("reward.judging=rules_then_model needs a model to ask; use rules without one")
        self._ask = ask if mode is Judging.rules_then_model else None

    def judge(self, items: Sequence[Item], *, known: Mapping[Item, RuleVerdicts] | None = None) -> list[Score]:
        """One Score per (instruction, response), with one verdict per constraint.

        All questions to the model go out in one call, item by item and constraint by constraint. `known` are the rules'
        verdicts on some of the items, as `rule_verdicts` gives them. Raises ValueError if the model gives another
        number of verdicts.
        """
        known = known or {}
        verdicts = [list(known[item] if item in known else rule_verdicts(item)) for item in items]
        places = [(i, j) for i, row in enumerate(verdicts) for j, verdict in enumerate(row) if verdict is None]
        questions = [question_about(items[i], j) for i, j in places]
        for (i, j), verdict in zip(places, self._by_model(questions), strict=True):
            verdicts[i][j] = verdict
        return [Score(tuple(_present(verdict) for verdict in row)) for row in verdicts]

    def _by_model(self, questions: Sequence[Question]) -> list[Verdict]:
        if self._ask is None:
            missing = Verdict(Outcome.MISSING, Source.RULE, "no rule covers all of it", Why.NO_RULE)
            return [missing] * len(questions)
        if not questions:
            return []
        verdicts = self._ask(questions)
        if len(verdicts) != len(questions):
            raise ValueError(f"{len(questions)} questions but {len(verdicts)} verdicts of the judge")
        return verdicts


def rule_verdicts(item: Item) -> list[Verdict | None]:
    """The rules' verdict on each constraint where it is final, None where the model has to say."""
    instruction, response = item
    return [_by_rule(constraint, instruction, response) for constraint in instruction.constraints]


def question_about(item: Item, place: int) -> Question:
    """What the model is asked about one constraint of an item."""
    instruction, response = item
    return Question(instruction.seed, instruction.constraints[place].text, response=response)


def _by_rule(constraint: Constraint, instruction: Instruction, response: str) -> Verdict | None:
    """The rule's verdict where it is final, None where the model has to say."""
    refusal = refuse(response, questions=(instruction.seed, instruction.prompt))
    if refusal is not None:
        return Verdict(Outcome.FAILED, Source.RULE, refusal)
    if constraint.spec is None:
        return None
    verdict = verify(constraint.spec, response, seed_question=instruction.seed)
    return verdict if constraint.is_covered or verdict.outcome is Outcome.FAILED else None


def _present(verdict: Verdict | None) -> Verdict:
    assert verdict is not None
    return verdict
