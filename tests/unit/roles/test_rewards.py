"""Reward formulas and the draw of templates, by hand-computed values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seif_nemo.config.algorithm import InstructorRewardKind
from seif_nemo.roles.follower import follower_reward
from seif_nemo.roles.instructor import draw_template, instructor_reward, with_diversity
from seif_nemo.roles.prompts import instructor_template
from seif_nemo.types.verdicts import Outcome, Score, Source, Verdict

PASSED, FAILED, MISSING = (Verdict(outcome, Source.RULE) for outcome in Outcome)


K = InstructorRewardKind


@pytest.mark.parametrize(
    ("rates", "by_rate", "by_band", "by_variance"),
    [
        ([1.0, 1.0], 0.0, 0.0, 0.0),
        ([0.0, 0.0, 0.0], 1.0, 0.0, 0.0),
        ([1.0, 0.0], 0.5, 1.0, 1.0),
        ([0.5, 0.5], 0.5, 1.0, 0.0),  # half of it each time: as hard, but no answer is better than another
        ([0.25, 0.25], 0.75, 0.5, 0.0),
        ([0.5, 1.0, 1.0, 1.0], 0.125, 0.25, 0.1875),  # 4 · (0.375² + 3 · 0.125²) / 4
        ([1.0, 0.0, 0.0], 2 / 3, 2 / 3, 8 / 9),
        ([1 / 3, 2 / 3, 2 / 3, 1 / 3], 0.5, 1.0, 1 / 9),
    ],
)
def test_instructor_rewards(rates: list[float], by_rate: float, by_band: float, by_variance: float) -> None:
    assert instructor_reward(K.one_minus_rate, rates) == pytest.approx(by_rate, abs=1e-12)
    assert instructor_reward(K.band, rates) == pytest.approx(by_band, abs=1e-12)
    assert instructor_reward(K.variance, rates) == pytest.approx(by_variance, abs=1e-12)


def test_the_papers_reward_needs_one_answer() -> None:
    assert instructor_reward(K.one_minus_rate, [0.25]) == 0.75


@pytest.mark.parametrize("kind", K)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_instructor_rewards_stay_within_bounds_and_know_no_order(kind: K, rates: list[float]) -> None:
    reward = instructor_reward(kind, rates)
    assert 0.0 <= reward <= 1.0
    assert reward == instructor_reward(kind, sorted(rates))


@pytest.mark.parametrize(
    ("kind", "rates"),
    [
        *((K.one_minus_rate, []), (K.one_minus_rate, [1.5]), (K.band, [-0.1, 0.5]), (K.variance, [float("nan"), 0.0])),
        *((K.band, [0.5]), (K.variance, [0.5])),
    ],
)
def test_instructor_reward_takes_rates_only_and_enough_of_them(kind: K, rates: list[float]) -> None:
    with pytest.raises(ValueError, match=r"follow_rates"):
        instructor_reward(kind, rates)


def test_common_demands_cost_but_keep_an_instruction_above_a_refusal() -> None:
    assert with_diversity(0.75, common_share=0.5, coefficient=1.0) == 0.375
    assert with_diversity(0.75, common_share=0.5, coefficient=0.0) == 0.75
    assert with_diversity(0.5, common_share=0.25, coefficient=0.5) == 0.4375
    assert with_diversity(0.01, common_share=0.99, coefficient=1.0) > 0.0
    assert with_diversity(1.0, common_share=1.0, coefficient=1.0) == 0.0


def test_follower_reward() -> None:
    score = Score((PASSED, FAILED, PASSED, PASSED))
    assert follower_reward(score, finished=True, format_ok=True) == 0.75
    assert follower_reward(score, finished=False, format_ok=True) == 0.0
    assert follower_reward(score, finished=True, format_ok=False) == 0.0
    broken = Score((PASSED, MISSING))
    assert follower_reward(broken, finished=True, format_ok=True) is None
    assert follower_reward(broken, finished=False, format_ok=True) == 0.0


def test_templates_are_drawn_evenly_and_by_the_seed_alone() -> None:
    templates = [instructor_template("many_kinds"), instructor_template("few_hard")]
    drawn = [draw_template(templates, seed=seed).name for seed in range(2000)]
    assert drawn == [draw_template(templates, seed=seed).name for seed in range(2000)]
    # 2000 fair draws: standard deviation 22.4
    assert abs(drawn.count("many_kinds") - 1000) < 90
    assert draw_template(templates[:1], seed=5) is templates[0]
    with pytest.raises(ValueError, match="no Instructor template"):
        draw_template([], seed=0)
