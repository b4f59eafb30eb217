import pytest

from seif_nemo.evolution.evaluation import evaluation_row, evaluation_values
from seif_nemo.types.constraints import Constraint, Instruction, Kind, Reading, Spec
from seif_nemo.types.rollouts import FinishReason, Rollout
from seif_nemo.types.verdicts import Outcome, Score, Source, Verdict, Why

SPEC = Spec(Kind.WORDS, high=9)
INSTRUCTION = Instruction(
    "Why?",
    (
        Constraint("at most 9 words", Reading.EQUIVALENT, SPEC),
        Constraint("at most 9 kind words", Reading.NECESSARY, SPEC),
    ),
    "Why? At most 9 kind words.",
)
ROLLOUT = Rollout((1, 2), (3, 4, 5), (-1.0, -1.0, -1.0), "Because.", FinishReason.STOP, "follower@0")
RULE_PASSED = Verdict(Outcome.PASSED, Source.RULE, "1 word")
RULE_FAILED = Verdict(Outcome.FAILED, Source.RULE, "10 words")
MODEL_PASSED = Verdict(Outcome.PASSED, Source.MODEL, "yes")
UNKNOWN = Verdict(Outcome.MISSING, Source.MODEL, "?", Why.UNPARSABLE)


def test_the_rate_of_a_prompt_is_unknown_if_that_of_one_answer_is():
    whole, half, unknown = (Score((RULE_PASSED, second)) for second in (MODEL_PASSED, RULE_FAILED, UNKNOWN))
    assert evaluation_row(INSTRUCTION, ROLLOUT, [whole, half])["follow_rate"] == 0.75
    assert evaluation_row(INSTRUCTION, ROLLOUT, [whole, unknown])["follow_rate"] is None


def test_a_kind_has_the_verdicts_of_what_rules_cover_whole():
    scores = [Score((RULE_PASSED, MODEL_PASSED)), Score((RULE_FAILED, RULE_FAILED)), Score((RULE_FAILED, UNKNOWN))]
    values = evaluation_values([INSTRUCTION] * 3, [ROLLOUT] * 3, scores)
    assert values["eval/kind/words"] == pytest.approx(1 / 3)
    assert values["eval/kind_count/words"] == 3
    assert values["eval/kind/judged by model"] == 0.5
    assert values["eval/kind_count/judged by model"] == 2
    assert (values["eval/missing"], values["eval/follow_rate"], values["eval/mean_tokens"]) == (1, 0.5, 3)
