"""The gate over a batch, its answers and the Instructor's rewards, with a reward component that answers from a list."""

from types import SimpleNamespace

import pytest

from seif_nemo.config.algorithm import InstructorRewardConfig, InstructorRewardKind
from seif_nemo.data.streams import derive_seed
from seif_nemo.evolution.evaluation import probe_values
from seif_nemo.evolution.gate import GateDecision
from seif_nemo.evolution.sifting import satisfies_all, sift
from seif_nemo.evolution.training_phases import price_instructions
from seif_nemo.types.constraints import Constraint, Instruction, Reading
from seif_nemo.types.records import RejectReason
from seif_nemo.types.rollouts import FinishReason
from seif_nemo.types.verdicts import Outcome, Score, Source, Verdict

P, F, M = (Verdict(outcome, Source.RULE) for outcome in Outcome)
LABEL = ("round", 1, "instructor", 0)


def _instruction(*texts):
    return Instruction("s", tuple(Constraint(text, Reading.NEEDS_JUDGE) for text in texts), " ".join(texts))


EASY, HARD, NEVER = _instruction("be kind"), _instruction("be brief"), _instruction("be kind", "sing")


class _Reward:
    """Answers with the next verdicts of an instruction; a verdict tuple with None in it is an unfinished answer."""

    def __init__(self, verdicts):
        self.verdicts = {prompt: iter(rows) for prompt, rows in verdicts.items()}
        self.asked = []
        self.seeds = []

    def answers(self, instructions, *, seeds):
        self.asked += [instruction.prompt for instruction in instructions]
        self.seeds += seeds
        return [self._rollout(next(self.verdicts[instruction.prompt])) for instruction in instructions]

    def _rollout(self, verdicts):
        reason = FinishReason.LENGTH if None in verdicts else FinishReason.STOP
        return SimpleNamespace(text=tuple(v for v in verdicts if v is not None), finish_reason=reason)

    def scores_later(self, items):
        return lambda: [Score(text) for _, text in items]


def _context(decisions, verdicts, *, samples):
    return SimpleNamespace(
        gate=SimpleNamespace(sift=lambda outputs, seeds: list(decisions)),
        reward=_Reward(verdicts),
        settings=SimpleNamespace(evolution=SimpleNamespace(solvability_samples=samples)),
        seed=lambda *labels: derive_seed(0, *labels),
    )


DECISIONS = (
    GateDecision(EASY),
    GateDecision(None, RejectReason.UNPARSABLE, "no JSON"),
    GateDecision(HARD),
    GateDecision(NEVER),
)
VERDICTS = {
    EASY.prompt: [(P,), (F,), (P,)],
    HARD.prompt: [(F,), (P,), (F,)],
    NEVER.prompt: [(P, F), (P, F), (P, F)],
}


def test_answers_are_drawn_once_for_reward_and_solvability():
    context = _context(DECISIONS, VERDICTS, samples=2)
    sifted = sift(context, [None] * 4, answers=3, label=LABEL)
    assert context.reward.asked == [EASY.prompt] * 3 + [HARD.prompt] * 3 + [NEVER.prompt] * 3
    assert len(set(context.reward.seeds)) == 9
    reasons = [decision.reason for decision in sifted.decisions]
    assert reasons == [None, RejectReason.UNPARSABLE, None, RejectReason.UNSOLVABLE]
    assert sifted.answered == [EASY, None, HARD, NEVER]
    assert sifted.follow_rates == [[1.0, 0.0, 1.0], [], [0.0, 1.0, 0.0], [0.5, 0.5, 0.5]]


def test_solvability_draws_the_answers_that_the_reward_does_not_need():
    context = _context(DECISIONS, VERDICTS, samples=2)
    sifted = sift(context, [None] * 4, answers=1, label=LABEL)
    assert len(context.reward.asked) == 6
    priced = price_instructions(sifted.decisions, sifted.follow_rates, config=InstructorRewardConfig(), answers=1)
    assert priced.rewards == [0.0, 0.0, 1.0, 0.0]  # 1 - A of the first answer alone; 0 for the unsolvable


def test_without_solvability_a_data_set_costs_no_answers():
    context = _context(DECISIONS, VERDICTS, samples=0)
    sifted = sift(context, [None] * 4, answers=0, label=LABEL)
    assert context.reward.asked == []
    assert sifted.decisions == list(DECISIONS)
    assert sifted.answers == []


@pytest.mark.parametrize(
    "verdicts, satisfied",
    [((P, P), True), ((P, F), False), ((P, M), None), ((F, M), False), ((P, P, None), False), ((P, M, None), False)],
)
def test_an_answer_satisfies_all_if_it_is_finished_and_nothing_failed(verdicts, satisfied):
    finished = FinishReason.LENGTH if None in verdicts else FinishReason.STOP
    score = Score(tuple(v for v in verdicts if v is not None))
    assert satisfies_all(SimpleNamespace(finish_reason=finished), score) is satisfied


def test_rewards_of_a_step():
    decisions = [
        GateDecision(EASY),  # "be kind": one of two others asks for it too
        GateDecision(None, RejectReason.CONFLICT),
        GateDecision(NEVER),  # "be kind" likewise, "sing": nobody
        GateDecision(None, RejectReason.FILTER_MISSING),
        GateDecision(HARD),  # "be brief": nobody; one of its verdicts is missing
    ]
    rates = [[1.0, 0.5], [], [0.5, 0.0], [], [None, 1.0]]
    config = InstructorRewardConfig(kind=InstructorRewardKind.band, diversity_coefficient=0.8)
    priced = price_instructions(decisions, rates, config=config, answers=2)
    assert priced.rewards == pytest.approx([0.5 * 0.6, 0.0, 0.5 * 0.8, None, None])
    assert priced.values == pytest.approx(
        {"reward/common_share": 0.25, "reward/of_kept": 0.5, "reward/diversity_cost": 0.15}
    )
    missing = price_instructions(decisions[4:], rates[4:], config=config, answers=2)
    assert (missing.rewards, missing.values) == ([None], {"reward/common_share": 0.0})


def test_a_probe_counts_the_unsolvable_as_hard():
    context = _context(DECISIONS, VERDICTS, samples=3)
    sifted = sift(context, [None] * 4, answers=3, label=LABEL)
    values = probe_values(sifted, [2 / 3, None, 1 / 3, 1 / 2])
    assert values["probe/difficulty"] == pytest.approx(0.5)
    assert values["probe/solvable_share"] == pytest.approx(2 / 3)
    assert values["probe/kept_share"] == 0.5
    assert values["gate/unsolvable"] == 1.0
