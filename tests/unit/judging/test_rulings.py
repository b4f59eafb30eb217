import json
from collections.abc import Sequence

import pytest

from seif_nemo.constraints.ifeval_rules import loose_variants
from seif_nemo.judging.rulings import is_undecided, judge_tasks, score_line
from seif_nemo.judging.tasks import Demand, Task, read_demands, read_task
from seif_nemo.types.constraints import Kind, Spec
from seif_nemo.types.questions import Question
from seif_nemo.types.verdicts import Outcome, Score, Source, Verdict, Why

PASSED, FAILED, MISSING = Outcome.PASSED, Outcome.FAILED, Outcome.MISSING


class Asker:
    """Answers yes, and keeps what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[Question]] = []

    def __call__(self, questions: Sequence[Question]) -> list[Verdict]:
        self.calls.append(list(questions))
        return [Verdict(PASSED, Source.MODEL, question.constraint) for question in questions]


def outcomes(row: dict[str, object], *, loose: bool = False) -> list[Outcome]:
    [score] = judge_tasks([read_task(row)], loose=loose)
    return [verdict.outcome for verdict in score.verdicts]


def test_one_verdict_per_id_which_needs_all_of_its_specs() -> None:
    row = {
        "response": "The river is wide.",
        "instruction_id_list": ["keywords:existence", "keywords:existence", "punctuation:no_comma"],
        "kwargs": [{"keywords": ["river", "wide"]}, {"keywords": ["river", "bank"]}, None],
    }
    [score] = judge_tasks([read_task(row)])
    assert [verdict.outcome for verdict in score.verdicts] == [PASSED, FAILED, PASSED]
    assert all(verdict.source is Source.RULE for verdict in score.verdicts)
    assert "bank" in score.verdicts[1].evidence
    assert score.follow_rate == pytest.approx(2 / 3)


def test_a_demand_of_several_specs_passes_if_all_of_them_do() -> None:
    words, commas, lines = Spec(Kind.WORDS, high=3), Spec(Kind.COMMAS, high=0), Spec(Kind.LINES, low=2)
    demands = tuple(Demand(specs=specs) for specs in [(words, commas), (words, lines, commas), (lines,)])
    [score] = judge_tasks([Task("one two", demands)])
    assert [(verdict.outcome, verdict.evidence) for verdict in score.verdicts] == [
        (PASSED, "2 words, at most 3; 0 commas, exactly 0"),
        (FAILED, "1 lines, at least 2"),
        (FAILED, "1 lines, at least 2"),
    ]


def test_without_a_model_the_uncovered_is_missing_and_the_rate_unknown() -> None:
    row = {"response": "A river, wide and cold.", "constraints": ["No commas.", "Use a warm tone.", "At most 9 words."]}
    [score] = judge_tasks([read_task(row)])
    assert [verdict.outcome for verdict in score.verdicts] == [FAILED, MISSING, PASSED]
    assert score.verdicts[1].why is Why.NO_RULE
    assert score.follow_rate is None


def test_a_model_is_asked_once_for_all_rows_and_only_for_what_no_rule_says() -> None:
    rows = [
        {
            "response": "A river.",
            "constraints": ["Use a warm tone.", "At most 9 words."],
            "seed_question": "What flows?",
        },
        {"response": "A bank.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
        {"response": "A moon.", "constraints": ["Sound like a poet.", "She wrote a book."], "prompt": "What shines?"},
    ]
    ask = Asker()
    scores = judge_tasks([read_task(row) for row in rows], ask=ask)
    assert ask.calls == [
        [
            Question("What flows?", "Use a warm tone.", "A river."),
            Question("What shines?", "Sound like a poet.", "A moon."),
        ]
    ]
    assert [[(v.outcome, v.source) for v in score.verdicts] for score in scores] == [
        [(PASSED, Source.MODEL), (PASSED, Source.RULE)],
        [(PASSED, Source.RULE)],
        [(PASSED, Source.MODEL), (MISSING, Source.RULE)],
    ]
    assert scores[2].verdicts[1].evidence == "not a constraint"
    assert scores[2].follow_rate is None


def test_no_question_no_call() -> None:
    ask = Asker()
    judge_tasks(
        [read_task({"response": "A river.", "constraints": ["At most 9 words.", "She wrote a book."]})], ask=ask
    )
    assert ask.calls == []


def test_an_echo_of_the_prompt_follows_nothing() -> None:
    row = {"response": "Name a river.", "constraints": ["At most 9 words."]}
    assert outcomes(row) == [PASSED]
    assert outcomes({**row, "prompt": "Name a river."}) == [FAILED]
    spec = {"response": "Name a river.", "specs": [{"kind": "words", "high": 9}]}
    assert outcomes(spec) == [PASSED]
    assert outcomes({**spec, "prompt": "Name a river."}) == [FAILED]
    assert outcomes({**spec, "seed_question": "Name a river."}) == [FAILED]


def test_the_loose_variants_are_those_of_ifeval() -> None:
    assert loose_variants("*a*\nb\n*c*") == ["*a*\nb\n*c*", "a\nb\nc", "b\n*c*", "b\nc", "*a*\nb", "a\nb", "b"]
    assert loose_variants("one line") == ["one line", ""]


@pytest.mark.parametrize(
    "response, strict, loose",
    [
        ("no comma here", PASSED, PASSED),
        ("Sure, here it is:\nno comma here", FAILED, PASSED),
        ("no comma here\nHope it helps, friend!", FAILED, PASSED),
        ("Sure, here:\nno comma here\nBye, friend!", FAILED, PASSED),
        ("Sure:\none, two\nBye!", FAILED, FAILED),
        ("one, two", FAILED, FAILED),
    ],
)
def test_loose_forgives_a_first_and_a_last_line(response: str, strict: Outcome, loose: Outcome) -> None:
    row = {"response": response, "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    assert outcomes(row) == [strict]
    assert outcomes(row, loose=True) == [loose]


def test_loose_forgives_asterisks_and_is_for_ids_and_specs_alone() -> None:
    row = {
        "response": "**End here.**",
        "instruction_id_list": ["startend:end_checker"],
        "kwargs": [{"end_phrase": "here."}],
    }
    assert outcomes({**row, "response": "**the end**\nBye"}, loose=True) == [FAILED]
    assert outcomes({**row, "response": "Come **here.**\nBye"}, loose=True) == [PASSED]
    text = {"response": "Sure, here:\nno comma", "constraints": ["No commas."]}
    assert outcomes(text, loose=True) == [FAILED]


@pytest.mark.parametrize(
    "text, undecided",
    [
        ("At most 9 words.", False),
        ("Use a warm tone.", True),
        ("She wrote a book.", True),
        ("No commas and be warm.", True),
    ],
)
def test_which_demands_rules_may_leave_open(text: str, undecided: bool) -> None:
    [demand] = read_demands({"constraints": [text]})
    assert is_undecided(demand) == undecided


def test_a_line_of_output() -> None:
    verdicts = (
        Verdict(PASSED, Source.RULE, "3 words – ok"),
        Verdict(MISSING, Source.RULE, "no rule", Why.NO_RULE),
        Verdict(MISSING, Source.MODEL, "\ud800", Why.UNPARSABLE),
    )
    data = score_line(5, Score(verdicts), None)
    assert "–".encode() in data
    assert data.endswith(b"\n")
    assert json.loads(data) == {
        "index": 5,
        "verdicts": [
            {"verdict": "passed", "source": "rule", "evidence": "3 words – ok"},
            {"verdict": "missing", "source": None, "evidence": "no rule"},
            {"verdict": "missing", "source": "model", "evidence": "\ud800"},
        ],
        "follow_rate": None,
        "error": None,
    }
    assert json.loads(score_line(0, None, "line 1: x")) == {
        "index": 0, "verdicts": [], "follow_rate": None, "error": "line 1: x",
    }  # fmt: skip
