"""Reward formulas and the draw of templates, by hand-computed values."""

import pytest

from seif_nemo.roles.follower import follower_reward
from seif_nemo.roles.instructor import draw_template, instructor_reward
from seif_nemo.roles.prompts import instructor_template
from seif_nemo.types.verdicts import Outcome, Score, Source, Verdict

PASSED, FAILED, MISSING = (Verdict(outcome, Source.RULE) for outcome in Outcome)


@pytest.mark.parametrize(
    ("rates", "reward"), [([1.0], 0.0), ([0.0], 1.0), ([0.25], 0.75), ([0.5, 1.0, 0.0, 0.5], 0.5), ([1 / 3], 2 / 3)]
)
def test_instructor_reward(rates: list[float], reward: float) -> None:
    assert instructor_reward(rates) == pytest.approx(reward, abs=1e-12)


@pytest.mark.parametrize("rates", [[], [1.5], [-0.1, 0.5], [float("nan")]])
def test_instructor_reward_takes_rates_only(rates: list[float]) -> None:
    with pytest.raises(ValueError, match=r"follow_rates"):
        instructor_reward(rates)


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
