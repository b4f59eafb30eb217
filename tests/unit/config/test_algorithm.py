import pytest

from seif_nemo.config.algorithm import (
    AlgorithmConfig,
    InstructorRewardConfig,
    InstructorRewardKind,
    OptimizerConfig,
    RoleTrainingConfig,
)
from seif_nemo.config.reward import RewardConfig
from seif_nemo.config.root import Config


def test_the_learning_rate_falls_in_a_straight_line_to_its_share():
    optimizer = OptimizerConfig(learning_rate=1e-3, final_learning_rate_share=0.1)
    rates = [optimizer.learning_rate_at(step, 4) for step in range(4)]
    assert rates == pytest.approx([1e-3, 7e-4, 4e-4, 1e-4])
    assert optimizer.learning_rate_at(0, 1) == 1e-3
    assert OptimizerConfig(learning_rate=1e-3).learning_rate_at(7, 9) == 1e-3


def test_epochs_by_round_hold_their_last_value():
    training = RoleTrainingConfig(epochs=[3, 1])
    assert [training.epochs_in(round) for round in (1, 2, 3, 7)] == [3, 1, 1, 1]


@pytest.mark.parametrize("kind", [InstructorRewardKind.band, InstructorRewardKind.variance])
def test_a_reward_that_compares_answers_needs_two(kind):
    algorithm = AlgorithmConfig(instructor_reward=InstructorRewardConfig(kind=kind))
    with pytest.raises(ValueError, match=rf"kind={kind.name} .*reward\.answers_per_instruction=1 must be at least 2$"):
        Config(algorithm=algorithm)
    Config(algorithm=algorithm, reward=RewardConfig(answers_per_instruction=2))
