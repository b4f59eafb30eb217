import math

import pytest

from seif_nemo.config.algorithm import (
    AdaptiveKlConfig,
    Advantage,
    AlgorithmConfig,
    CriticConfig,
    Decay,
    InstructorRewardConfig,
    InstructorRewardKind,
    OptimizerConfig,
    PolicyLoss,
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


def test_warm_up_rises_in_a_straight_line_and_a_cosine_falls_slowly_at_both_ends():
    optimizer = OptimizerConfig(learning_rate=1e-3, warmup_steps=3, decay=Decay.cosine, final_learning_rate_share=0.2)
    rates = [optimizer.learning_rate_at(step, 8) for step in range(8)]
    half_turns = [(1 - math.cos(math.pi * part / 4)) / 2 for part in range(5)]
    assert rates == pytest.approx([2.5e-4, 5e-4, 7.5e-4, *(1e-3 * (1 - 0.8 * part) for part in half_turns)])
    assert rates[-1] == pytest.approx(2e-4)
    assert OptimizerConfig(learning_rate=1e-3, warmup_steps=5).learning_rate_at(1, 2) == pytest.approx(1e-3 / 3)


def test_epochs_by_round_hold_their_last_value():
    training = RoleTrainingConfig(epochs=[3, 1])
    assert [training.epochs_in(round) for round in (1, 2, 3, 7)] == [3, 1, 1, 1]


def test_a_response_alone_needs_a_critic():
    alone = RoleTrainingConfig(group_size=1)
    AlgorithmConfig(advantage=Advantage.gae, instructor=alone, follower=alone)
    with pytest.raises(ValueError, match=r"^algorithm\.follower\.group_size=1 must be at least 2: .* without a critic"):
        AlgorithmConfig(follower=alone)
    with pytest.raises(ValueError, match=r"^algorithm\.follower\.group_size=0 must be at least 1$"):
        AlgorithmConfig(advantage=Advantage.gae, follower=RoleTrainingConfig(group_size=0))


def test_keys_without_effect_are_refused():
    with pytest.raises(ValueError, match=r"^algorithm\.critic\.epochs=2 has no effect with algorithm\.advantage=grpo"):
        AlgorithmConfig(critic=CriticConfig(epochs=2))
    slow = CriticConfig(optimizer=OptimizerConfig(learning_rate=1e-5, beta1=0.8))
    with pytest.raises(ValueError, match=r"^algorithm\.critic\.optimizer\.beta1=0\.8 has no effect"):
        AlgorithmConfig(critic=slow)
    with pytest.raises(ValueError, match=r"^algorithm\.adaptive_kl\.horizon=5000 has no effect .*target=null"):
        AlgorithmConfig(adaptive_kl=AdaptiveKlConfig(horizon=5000))
    with pytest.raises(ValueError, match=r"^algorithm\.instructor\.kl_coefficient=0 stays 0"):
        AlgorithmConfig(adaptive_kl=AdaptiveKlConfig(target=1.0), instructor=RoleTrainingConfig(kl_coefficient=0))
    with pytest.raises(ValueError, match=r"^algorithm\.critic\.warmup_steps=3 must be less than .*max_steps=3"):
        AlgorithmConfig(
            advantage=Advantage.gae,
            critic=CriticConfig(warmup_steps=3),
            instructor=RoleTrainingConfig(max_steps=3),
        )


@pytest.mark.parametrize("kind", [InstructorRewardKind.band, InstructorRewardKind.variance])
def test_a_reward_that_compares_answers_needs_two(kind):
    algorithm = AlgorithmConfig(instructor_reward=InstructorRewardConfig(kind=kind))
    with pytest.raises(ValueError, match=rf"kind={kind.name} .*reward\.answers_per_instruction=1 must be at least 2$"):
        Config(algorithm=algorithm)
    Config(algorithm=algorithm, reward=RewardConfig(answers_per_instruction=2))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"policy_loss": PolicyLoss.gspo, "dual_clip": 5.0}, r"dual_clip=5\.0 has no effect .*policy_loss=gspo"),
        ({"correction_bound": 5.0}, r"correction_bound=5\.0 has no effect with algorithm\.correction=none"),
        ({"advantage": Advantage.gae, "dynamic_sampling_draws": 2}, r"algorithm\.advantage=gae learns from those too"),
        ({"kl_in_reward": True, "dynamic_sampling_draws": 2}, r"algorithm\.kl_in_reward=true learns from those too"),
    ],
)
def test_values_that_others_leave_without_effect_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        AlgorithmConfig(**values)
