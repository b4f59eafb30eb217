import numpy as np
import pytest

from seif_nemo.config.algorithm import Advantage, AlgorithmConfig, Correction, KlEstimator
from seif_nemo.evolution.advantages import correction_weights, kl_penalties, shaped_reward, token_advantages

REWARDS, GROUPS, LENGTHS = [1.0, 0.0, None, 0.5, 0.5], [0, 0, 0, 1, 1], [2, 1, 3, 1, 2]


def found(kind, penalties=None, rewards=REWARDS):
    result = token_advantages(AlgorithmConfig(advantage=kind), rewards, GROUPS, LENGTHS, penalties=penalties)
    return [None if values is None else values.tolist() for values in result.advantages], result


def test_every_token_has_its_responses_advantage():
    advantages, result = found(Advantage.rloo)
    assert advantages == [[1.0, 1.0], [-1.0], None, None, None]
    assert (result.num_used, result.num_zero_variance, result.num_missing) == (1, 1, 0)


def test_penalties_are_taken_off_the_reward_of_the_whole_response():
    penalties = [np.array([0.25, 0.25], np.float32), np.array([0.0], np.float32), None] + [np.zeros(1, np.float32)] * 2
    advantages, result = found(Advantage.rloo, penalties)
    assert advantages == [[0.5, 0.5], [-0.5], None, None, None]
    penalties[3] = np.array([0.5], np.float32)  # now the second group has unequal rewards
    advantages, result = found(Advantage.dr_grpo, penalties)
    assert advantages[3:] == [[-0.25], [0.25, 0.25]]
    assert result.num_used == 2


def test_reinforce_pp_takes_penalties_off_token_by_token_and_normalises_over_all_tokens():
    penalties = [np.array([0.5, 0.25], np.float32), np.array([0.0], np.float32), None] + [
        np.zeros(n, np.float32) for n in (1, 2)
    ]
    advantages, result = found(Advantage.reinforce_pp, penalties)
    returns = np.array([0.25, 0.75, 0.0, 0.5, 0.5, 0.5])
    expected = (returns - returns.mean()) / (returns.std(ddof=1) + 1e-6)
    assert advantages[2] is None
    flat = [value for values in advantages if values is not None for value in values]
    assert flat == pytest.approx(expected.tolist(), abs=1e-6)
    assert (result.num_used, result.num_zero_variance, result.num_missing) == (2, 0, 0)


def test_a_critic_learns_from_every_response_with_a_reward():
    advantages, result = found(Advantage.gae)
    assert [values is None for values in advantages] == [False, False, True, False, False]
    assert (result.num_used, result.num_zero_variance, result.num_missing) == (2, 0, 0)


def test_its_baseline_leaves_groups_of_equal_rewards_out():
    advantages, result = found(Advantage.reinforce_pp_baseline)
    centred = np.array([0.5, 0.5, -0.5])
    expected = (centred - centred.mean()) / (centred.std(ddof=1) + 1e-6)
    assert [*advantages[0], *advantages[1]] == pytest.approx(expected.tolist(), abs=1e-6)
    assert advantages[2:] == [None, None, None]
    assert result.num_zero_variance == 1


def test_long_answers_lose_reward_and_missing_ones_stay_missing():
    algorithm = AlgorithmConfig(overlong_buffer_tokens=4)
    assert shaped_reward(1.0, 14, algorithm, max_tokens=16) == 0.5
    assert shaped_reward(None, 14, algorithm, max_tokens=16) is None
    assert shaped_reward(1.0, 14, AlgorithmConfig(), max_tokens=16) == 1.0


def test_penalties_are_the_coefficient_times_the_estimate():
    algorithm = AlgorithmConfig(kl_estimator=KlEstimator.k1)
    policy, reference = np.array([-1.0, -2.0], np.float32), np.array([-1.5, -1.0], np.float32)
    assert kl_penalties(algorithm, 0.5, policy, reference).tolist() == [0.25, -0.5]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Correction.none, None),
        (Correction.token_cut, [1.5, 0.5]),
        (Correction.token_mask, [0.0, 0.0]),
        (Correction.sequence_cut, [1.0, 1.0]),
        (Correction.sequence_mask, [1.0, 1.0]),
    ],
)
def test_corrections(kind, expected):
    bound = {} if kind is Correction.none else {"correction_bound": 1.5}
    algorithm = AlgorithmConfig(correction=kind, **bound)
    weights = correction_weights(algorithm, np.log(np.array([0.4, 0.1], np.float32)), np.log([0.2, 0.2]))
    assert weights is None if expected is None else weights.tolist() == pytest.approx(expected, rel=1e-5)
