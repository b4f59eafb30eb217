import json

import pytest

from seif_nemo.config.evolution import GateRules
from seif_nemo.config.reward import Judging
from seif_nemo.evolution.gate import Gate, InstructorOutput, count_decisions, refuse_unsolvable
from seif_nemo.roles.prompts import follower_template, instructor_template
from seif_nemo.types.records import RejectReason

GOOD = ("use at least 20 words", "end with the phrase good luck", "do not use commas")


def _output(*texts, raw=None, finished=True):
    text = json.dumps({f"c{i}": t for i, t in enumerate(texts, start=1)}) if raw is None else raw
    return InstructorOutput("Tell me about rivers.", text, instructor_template("tiny"), finished)


def _gate(*, rules=GateRules.full, judging=Judging.rules, fits=True, verdicts=None):
    asked = []

    def model_filter(instructions, seeds):
        asked.append((list(instructions), list(seeds)))
        return [True] * len(instructions) if verdicts is None else verdicts

    template = follower_template("tiny")
    gate = Gate(
        rules=rules, judging=judging, follower_template=template, fits=lambda _: fits, model_filter=model_filter
    )
    return gate, asked


@pytest.mark.parametrize(
    "output, reason",
    [
        (_output(*GOOD), None),
        (_output(*GOOD, finished=False), RejectReason.UNFINISHED),
        (_output(raw="I would rather not."), RejectReason.UNPARSABLE),
        (_output(*GOOD[:2]), RejectReason.WRONG_COUNT),
        (_output(GOOD[0], GOOD[1], "use at least 30 words"), RejectReason.REPEATED),
        (_output(GOOD[0], GOOD[1], "She wrote a book."), RejectReason.NOT_A_CONSTRAINT),
        (_output(GOOD[0], GOOD[1], "sound like a pirate"), RejectReason.NO_RULE),
        (_output(GOOD[0], GOOD[1], "use at most 10 words"), RejectReason.CONFLICT),
        (_output("use only lowercase letters", "use only capital letters", GOOD[2]), RejectReason.CONFLICT),
        (_output("end the first paragraph with the phrase good luck", GOOD[0], GOOD[2]), None),
    ],
)
def test_the_reason_for_each_refusal(output, reason):
    gate, _ = _gate()
    (decision,) = gate.sift([output], seeds=[7])
    assert decision.reason is reason
    assert (decision.instruction is None) == (reason is not None)


def test_a_conflict_with_the_seed_says_what_the_seed_says():
    gate, _ = _gate()
    texts = json.dumps({"c1": "use at least 20 words", "c2": "write exactly 3 sentences", "c3": "do not use commas"})
    seed = "What is a river? Answer in one sentence."
    (decision,) = gate.sift([InstructorOutput(seed, texts, instructor_template("tiny"), True)], seeds=[7])
    assert decision.reason is RejectReason.SEED_CONFLICT
    assert "The seed says: Answer in one sentence" in decision.detail


@pytest.mark.parametrize(
    "output, reason",
    [
        (_output(GOOD[0], GOOD[1], "use at least 30 words"), None),
        (_output(GOOD[0], GOOD[1], "She wrote a book."), None),
        (_output(GOOD[0], GOOD[1], "use at most 10 words"), None),
        (_output(*GOOD, finished=False), RejectReason.UNFINISHED),
        (_output(raw="I would rather not."), RejectReason.UNPARSABLE),
        (_output(*GOOD[:2]), RejectReason.WRONG_COUNT),
    ],
)
def test_a_gate_that_only_parses_leaves_the_rest_to_the_filter(output, reason):
    gate, asked = _gate(rules=GateRules.parse_only)
    (decision,) = gate.sift([output], seeds=[7])
    assert decision.reason is reason
    assert len(asked[0][0]) == (reason is None)


def test_an_instruction_that_no_answer_satisfies_is_refused():
    gate, _ = _gate()
    kept, refused = gate.sift([_output(*GOOD), _output(raw="?")], seeds=[1, 2])

    def reason(trials, samples):
        (decision,) = refuse_unsolvable([kept], [trials], samples=samples)
        assert (decision.instruction is None) == (decision.reason is not None)
        return decision.reason

    assert reason([False, False, False], 3) is RejectReason.UNSOLVABLE
    assert reason([False, False, True], 3) is None
    assert reason([False, False, True], 2) is RejectReason.UNSOLVABLE  # only the first two are asked
    assert reason([False, None, False], 3) is None  # a missing verdict proves nothing
    assert reason([False, False, False], 0) is None  # off
    assert refuse_unsolvable([refused, kept], [[], [False]], samples=1)[0] is refused
    (decision,) = refuse_unsolvable([kept], [[False] * 4], samples=4)
    assert decision.detail == "0 of 4 answers satisfy all of it"
    assert count_decisions([decision, kept]) == {"gate/asked": 2.0, "gate/kept": 1.0, "gate/unsolvable": 1.0}


def test_a_kept_instruction_holds_seed_constraints_and_prompt():
    gate, _ = _gate()
    (decision,) = gate.sift([_output(*GOOD)], seeds=[7])
    assert decision.instruction is not None
    assert decision.instruction.seed == "Tell me about rivers."
    assert tuple(c.text for c in decision.instruction.constraints) == GOOD
    assert decision.instruction.prompt == "Tell me about rivers." + "".join(f"\n* {text}" for text in GOOD)


def test_a_model_may_judge_what_no_rule_covers():
    gate, _ = _gate(judging=Judging.rules_then_model)
    (decision,) = gate.sift([_output(GOOD[0], GOOD[1], "sound like a pirate")], seeds=[7])
    assert decision.reason is None


def test_what_does_not_fit_the_model_is_refused():
    gate, _ = _gate(fits=False)
    (decision,) = gate.sift([_output(*GOOD)], seeds=[7])
    assert decision.reason is RejectReason.TOO_LONG


def test_the_filter_sees_only_what_the_rules_kept_and_its_silence_is_not_a_verdict():
    gate, asked = _gate(verdicts=[True, False, None])
    outputs = [_output(*GOOD), _output(raw="?"), _output(*GOOD), _output(*GOOD)]
    decisions = gate.sift(outputs, seeds=[10, 11, 12, 13])
    assert asked[0][1] == [10, 12, 13]
    reasons = [decision.reason for decision in decisions]
    assert reasons == [None, RejectReason.UNPARSABLE, RejectReason.FILTERED, RejectReason.FILTER_MISSING]
    assert count_decisions(decisions) == {
        "gate/asked": 4.0,
        "gate/kept": 1.0,
        "gate/filter_missing": 1.0,
        "gate/filtered": 1.0,
        "gate/unparsable": 1.0,
    }
