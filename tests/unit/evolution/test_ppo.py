"""A step of PPO outside the passes: rewards per token, advantages, and in what order critic and role take turns."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from seif_nemo.config.algorithm import Advantage, AlgorithmConfig, CriticConfig, OptimizerConfig, RoleTrainingConfig
from seif_nemo.evolution.ppo import begin_critic_phase, critic_of, learn_values, num_waiting_steps, token_rewards
from seif_nemo.types.records import Phase, UnitKey
from seif_nemo.types.residents import Resident
from seif_nemo.types.rollouts import FinishReason, Rollout
from seif_nemo.types.training import CriticStats

STATS = CriticStats(0.5, 0.1, 0.2, 0.3, 0.4, 1.0, 0.01, 1e-3, 5, 2, 0)


class Recorder:
    """Bank, model and critic in one: what was called, in order."""

    def __init__(self, values):
        self.calls, self._values = [], values

    @contextmanager
    def resident(self, name):
        self.calls.append(f"in {name}")
        yield
        self.calls.append(f"out {name}")

    def mark_updated(self):
        self.calls.append("updated")

    def configure(self, optimizer):
        self.calls.append(("configure", optimizer.beta1))

    def set_learning_rate(self, rate):
        self.calls.append(("lr", rate))

    def reset_optimizer(self):
        self.calls.append("reset")

    def values(self, pairs):
        self.calls.append(("values", len(pairs)))
        return self._values

    def train_step(self, samples, **settings):
        self.calls.append("train")
        self.samples, self.settings = samples, settings
        return STATS


def context_with(recorder, **critic):
    training = RoleTrainingConfig(prompts_per_step=4, mini_batches=1)
    config = CriticConfig(**{"mini_batches": 4, **critic})
    algorithm = AlgorithmConfig(advantage=Advantage.gae, critic=config, instructor=training, follower=training)

    @contextmanager
    def timers(name):
        yield

    return SimpleNamespace(
        settings=SimpleNamespace(algorithm=algorithm, training=lambda phase: training),
        critic=recorder,
        bank=recorder,
        trainable=recorder,
        timers=timers,
        seed=lambda *labels: hash(labels),
        role=lambda phase: Resident.INSTRUCTOR if phase is Phase.INSTRUCTOR else Resident.FOLLOWER,
    )


def floats(*values):
    return np.array(values, np.float32)


def test_the_reward_is_on_the_last_token_and_penalties_on_theirs():
    assert token_rewards(0.5, None, 3).tolist() == [0.0, 0.0, 0.5]
    assert token_rewards(0.5, floats(0.25, -0.5), 2).tolist() == [-0.25, 1.0]
    assert token_rewards(1.0, None, 0).tolist() == []


def test_advantages_are_against_the_values_before_the_update():
    values = [floats(0.5, 0.25), floats(-0.5)]
    recorder = Recorder(values)
    optimizer = OptimizerConfig(learning_rate=1e-3, final_learning_rate_share=0.5, beta1=0.7)
    context = context_with(recorder, gamma=0.9, gae_lambda=0.8, epochs=3, optimizer=optimizer)
    rollouts = [Rollout(np.array([1]), np.arange(len(v)), v, "", FinishReason.STOP, "follower@1") for v in values]
    rewards = [floats(-0.1, 1.0), floats(0.0)]
    key = UnitKey(1, Phase.FOLLOWER, 2)
    found, metrics = learn_values(context, key, 3, rollouts, [4, 7], rewards)
    last, alone = 1.0 - 0.25, 0.0 + 0.5
    first = -0.1 + 0.9 * 0.25 - 0.5 + 0.9 * 0.8 * last
    mean, std = np.mean([first, last, alone]), np.std([first, last, alone], ddof=1)
    assert found[0] == pytest.approx([(first - mean) / std, (last - mean) / std], rel=1e-4)
    assert found[1] == pytest.approx([(alone - mean) / std], rel=1e-4)
    assert recorder.samples[0].returns == pytest.approx([first + 0.5, last + 0.25])
    assert [sample.group for sample in recorder.samples] == [4, 7]
    assert recorder.settings["mini_batches"] == 2  # two of the step's four groups
    assert recorder.settings["epochs"] == 3
    lr = ("lr", pytest.approx(5e-4))
    steps = [("values", 2), ("configure", 0.7), lr, "train", "updated"]
    assert recorder.calls == ["in follower_critic", *steps, "out follower_critic"]
    assert metrics["critic/explained_variance"] == 0.2


def test_each_role_has_its_critic_which_starts_a_phase_with_fresh_moments():
    recorder = Recorder([])
    begin_critic_phase(context_with(recorder), 1, Phase.INSTRUCTOR, 9)
    assert recorder.calls == ["in instructor_critic", "reset", "out instructor_critic"]
    recorder.calls.clear()
    begin_critic_phase(context_with(recorder, optimizer=OptimizerConfig(reset_each_phase=False)), 1, Phase.FOLLOWER, 9)
    without = context_with(None)
    begin_critic_phase(without, 1, Phase.FOLLOWER, 9)
    assert recorder.calls == []
    assert critic_of(without, Resident.FOLLOWER) is None


def test_the_policy_waits_in_the_first_steps_of_the_first_round_only():
    context = context_with(Recorder([]), warmup_steps=2)
    assert [num_waiting_steps(context, round) for round in (1, 2)] == [2, 0]


def test_a_phase_without_a_step_for_the_policy_is_told_of(caplog):
    context = context_with(Recorder([]), warmup_steps=2)
    begin_critic_phase(context, 1, Phase.FOLLOWER, 3)
    begin_critic_phase(context, 2, Phase.FOLLOWER, 1)
    assert not caplog.messages
    begin_critic_phase(context, 1, Phase.FOLLOWER, 2)
    assert caplog.messages == [
        "round 1: the policy does not learn in the follower's phase: all its 2 steps are the critic's "
        "(algorithm.critic.warmup_steps=2)"
    ]
