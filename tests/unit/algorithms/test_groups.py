import math

import pytest

from seif_nemo.algorithms.dr_grpo import dr_grpo_advantages
from seif_nemo.algorithms.groups import GroupAdvantages, group_advantages
from seif_nemo.algorithms.grpo import grpo_advantages
from seif_nemo.algorithms.reinforce_pp import centre
from seif_nemo.algorithms.rloo import rloo_advantages


def grpo(rewards: list[float | None], groups: list[int]) -> GroupAdvantages:
    return group_advantages(rewards, groups, grpo_advantages)


def test_grpo_normalises_with_the_unbiased_standard_deviation() -> None:
    # mean 2, squared deviations 1 + 0 + 1, divided by n - 1 = 2: std 1
    result = grpo([1.0, 2.0, 3.0], [0, 0, 0])
    assert result.advantages == pytest.approx((-1 / (1 + 1e-6), 0.0, 1 / (1 + 1e-6)), abs=1e-15)
    assert result.num_used == 1


def test_two_of_four_pass() -> None:
    # mean 0.5, variance 4 * 0.25 / 3
    std = math.sqrt(1 / 3)
    high, low = 0.5 / (std + 1e-6), -0.5 / (std + 1e-6)
    assert grpo([1, 0, 0, 1], [7] * 4).advantages == pytest.approx((high, low, low, high))


def test_dr_grpo_and_reinforce_pp_baseline_only_take_the_mean_off() -> None:
    rewards, groups = [1.0, 0.0, 0.5, 9.0, 1.0], [0, 0, 0, 1, 1]
    for formula in (dr_grpo_advantages, centre):
        assert group_advantages(rewards, groups, formula).advantages == pytest.approx((0.5, -0.5, 0.0, 4.0, -4.0))


def test_rloo_takes_off_the_mean_of_the_others() -> None:
    # 1 - (0 + 0.5) / 2, 0 - (1 + 0.5) / 2, 0.5 - (1 + 0) / 2; and 9 - 1, 1 - 9
    result = group_advantages([1.0, 0.0, 0.5, 9.0, 1.0], [0, 0, 0, 1, 1], rloo_advantages)
    assert result.advantages == pytest.approx((0.75, -0.75, 0.0, 8.0, -8.0))


def test_groups_may_be_interleaved() -> None:
    mixed = grpo([1.0, 10.0, 2.0, 30.0, 3.0], [0, 1, 0, 1, 0])
    assert mixed.advantages[0::2] == grpo([1.0, 2.0, 3.0], [0, 0, 0]).advantages
    assert mixed.advantages[1::2] == grpo([10.0, 30.0], [5, 5]).advantages
    assert mixed.num_used == 2


def test_equal_rewards_are_dropped_and_counted() -> None:
    # 0.1 + 0.2 differs from 0.3 in the last bit
    result = grpo([0.3, 0.1 + 0.2, 0.3, 0.0, 1.0], [0, 0, 0, 1, 1])
    assert result.advantages[:3] == (None, None, None)
    assert result.advantages[3:] == pytest.approx((-math.sqrt(0.5), math.sqrt(0.5)), abs=2e-6)
    assert (result.num_used, result.num_zero_variance, result.num_missing) == (1, 1, 0)


def test_a_missing_reward_leaves_its_group() -> None:
    result = grpo([1.0, None, 2.0, 3.0, None, 5.0, None, None], [0, 0, 0, 0, 1, 1, 2, 2])
    a, b, c = grpo([1.0, 2.0, 3.0], [0, 0, 0]).advantages
    assert result.advantages == (a, None, b, c, None, None, None, None)
    assert (result.num_used, result.num_zero_variance, result.num_missing) == (1, 0, 2)
    assert result.num_missing_rewards == 4


def test_a_reward_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(ValueError, match="group 1"):
        grpo([0.0, 1.0, float("nan"), 1.0], [0, 0, 1, 1])
