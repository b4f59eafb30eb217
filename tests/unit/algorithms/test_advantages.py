import math

import pytest

from seif_nemo.algorithms.advantages import group_advantages


def test_normalises_with_the_unbiased_standard_deviation() -> None:
    # mean 2, squared deviations 1 + 0 + 1, divided by n - 1 = 2: std 1
    result = group_advantages([[1.0, 2.0, 3.0]])
    assert result.advantages[0] == pytest.approx((-1 / (1 + 1e-6), 0.0, 1 / (1 + 1e-6)), abs=1e-15)
    assert result.num_kept_groups == 1


def test_two_of_four_pass() -> None:
    # mean 0.5, variance 4 * 0.25 / 3
    std = math.sqrt(1 / 3)
    result = group_advantages([[1, 0, 0, 1]])
    high, low = 0.5 / (std + 1e-6), -0.5 / (std + 1e-6)
    assert result.advantages[0] == pytest.approx((high, low, low, high))


def test_equal_rewards_are_dropped_and_counted() -> None:
    result = group_advantages([[0.3, 0.1 + 0.2, 0.3], [0.0, 1.0]])  # 0.1 + 0.2 differs from 0.3 in the last bit
    assert result.advantages[0] == (None, None, None)
    assert result.advantages[1] == pytest.approx((-math.sqrt(0.5), math.sqrt(0.5)), abs=2e-6)
    assert (result.num_zero_variance_groups, result.num_kept_groups) == (1, 1)


def test_a_missing_reward_leaves_its_group() -> None:
    with_gap = group_advantages([[1.0, None, 2.0, 3.0], [None, 5.0], [None, None]])
    without = group_advantages([[1.0, 2.0, 3.0]])
    a, b, c, d = with_gap.advantages[0]
    assert b is None
    assert (a, c, d) == without.advantages[0]
    assert with_gap.advantages[1:] == ((None, None), (None, None))
    assert (with_gap.num_missing_rewards, with_gap.num_small_groups, with_gap.num_missing_groups) == (4, 1, 1)
    assert with_gap.num_zero_variance_groups == 0


def test_a_reward_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(ValueError, match="group 1"):
        group_advantages([[0.0, 1.0], [float("nan"), 1.0]])
