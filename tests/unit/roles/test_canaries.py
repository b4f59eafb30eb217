"""Canary answers score 0 by rules, and a judge that quotes them is not misread.

Where 0 is right by rules alone: for every spec if the answer is silent; for every limit and form too if it is one word;
and for every demand that something be there if the answer holds none of it. (A talking canary does keep "at most 50
words": that is no error of the rule.)
"""

import pytest

from seif_nemo.config.reward import Judging
from seif_nemo.constraints.parse import parse_constraint
from seif_nemo.roles.canaries import Canary, CanaryKind, canaries
from seif_nemo.roles.judger import Judger, judger_messages, parse_judgement, question_seed
from seif_nemo.roles.prompts import judger_template, secret_code
from seif_nemo.types.constraints import Instruction, Reading
from seif_nemo.types.questions import Question
from seif_nemo.types.verdicts import Outcome, Source, Why

LIMITS = [
    "use at most 50 words",
    "do not use commas",
    'do not use the word "river"',
    "use at most 5 sentences",
    "write the whole answer in lowercase letters",
    "write the whole answer in capital letters",
    "put the whole answer in double quotes",
]
DEMANDS = [
    "use at least 60 words",
    'include the word "zebra"',
    "use exactly 4 bullet points",
    "use at least 12 sentences",
    "highlight at least 3 sections in markdown",
    "include at least 20 placeholders in square brackets",
    "use at least 25 words in capital letters",
    'end with the phrase "That is all there is."',
    'start with the phrase "Once upon a time"',
    "write exactly 5 paragraphs",
]
SEED = "Tell me about lakes, and why they freeze."
TEMPLATE = judger_template("single_constraint")


def instruction(text: str) -> Instruction:
    return Instruction(SEED, (parse_constraint(text),), f"{SEED}\n- {text}")


def all_for(text: str) -> list[tuple[Instruction, Canary]]:
    told = instruction(text)
    return [(told, canary) for canary in canaries(seed_question=told.seed, prompt=told.prompt)]


def test_there_are_enough_and_all_differ() -> None:
    found = canaries(seed_question=SEED, prompt="Prompt of it.")
    assert len(found) >= 60
    assert len({canary.name for canary in found}) == len({canary.text for canary in found}) == len(found)


@pytest.mark.parametrize("text", [*LIMITS, *DEMANDS])
def test_rules_give_canaries_nothing(text: str) -> None:
    assert instruction(text).constraints[0].reading is Reading.EQUIVALENT
    pairs = all_for(text)
    scores = Judger(mode=Judging.rules, ask=None).judge([(told, canary.text) for told, canary in pairs])
    zero = (CanaryKind.SILENT, CanaryKind.ONE_WORD) if text in LIMITS else tuple(CanaryKind)
    paid = [canary.name for (_, canary), s in zip(pairs, scores, strict=True) if canary.kind in zero and s.follow_rate]
    assert paid == []
    assert all(verdict.outcome is not Outcome.MISSING for score in scores for verdict in score.verdicts)


def test_what_no_rule_covers_is_refused_for_silence_and_asked_for_the_rest() -> None:
    asked: list[str] = []

    def ask(questions: list[Question]):
        asked.extend(question.response for question in questions)
        return [parse_judgement("", seed=1) for _ in questions]

    pairs = all_for("be kind")
    Judger(mode=Judging.rules_then_model, ask=ask).judge([(told, canary.text) for told, canary in pairs])
    assert asked == [canary.text for _, canary in pairs if canary.kind is not CanaryKind.SILENT]


@pytest.mark.parametrize("direct", [False, True])
def test_a_judge_that_quotes_a_canary_is_not_misread(direct: bool) -> None:
    for told, canary in all_for("be kind"):
        question = Question(told.seed, told.constraints[0].text, canary.text)
        seed = question_seed(7, question)
        prompt = judger_messages(TEMPLATE, question, seed=seed, direct=direct)[-1].content
        code = secret_code(seed)
        shown = prompt.split(f"Answer:\n<<< {code}\n")[1].split(f"\n>>> {code}")[0]
        no, yes = f"[[{code} no]]", f"[[{code} yes]]"
        for text, outcome in (
            (shown, Outcome.MISSING),
            (canary.text, Outcome.MISSING),
            (prompt, Outcome.MISSING),
            (f"The answer reads: {shown}", Outcome.MISSING),
            (f"The answer reads: {shown} So: {no}", Outcome.FAILED),
            (f"First thought: {yes}. But it reads: {shown}. {no}", Outcome.FAILED),
            (f"{no}\nIt reads: {shown}", Outcome.FAILED),
            (f"{shown}{no}{shown}", Outcome.FAILED),
            (f"It reads: {shown}\n{yes}", Outcome.PASSED),
        ):
            verdict = parse_judgement(text, seed=seed)
            assert (verdict.outcome, verdict.source) == (outcome, Source.MODEL), (canary.name, text)
            assert verdict.why is (Why.UNPARSABLE if outcome is Outcome.MISSING else None)
        assert code not in canary.text


def test_no_canary_ends_its_block_or_its_turn() -> None:
    for told, canary in all_for("be kind"):
        seed = question_seed(7, Question(told.seed, "be kind", canary.text))
        prompt = judger_messages(TEMPLATE, Question(told.seed, "be kind", canary.text), seed=seed)[-1].content
        code = secret_code(seed)
        assert (prompt.count(f"<<< {code}"), prompt.count(f">>> {code}")) == (3, 3), canary.name
        assert not any(token in prompt for token in ("<|", "</s>", "[/INST]", "<think>", "</think>")), canary.name
