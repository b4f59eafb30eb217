"""Steps that there is little or nothing to learn from: what reaches the model, and what is refused."""

import math
from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest

from seif_nemo.config.algorithm import Advantage, AlgorithmConfig, Correction, RoleTrainingConfig
from seif_nemo.config.generation import GenerationConfig
from seif_nemo.evolution.grpo import learn
from seif_nemo.evolution.rewarded import BadRewardError, RewardedRollout
from seif_nemo.observability.timers import Timers
from seif_nemo.types.records import Phase, UnitKey
from seif_nemo.types.residents import Resident
from seif_nemo.types.rollouts import FinishReason, Rollout
from seif_nemo.types.training import CriticStats, TrainStats
from tests.unit.models.test_flops import ARCH

MAX_TOKENS = 4


class Bank:
    version, version_before = "follower@3", "follower@2"
    updated = 0

    def switch(self, name):
        pass

    def resident(self, name):
        return Timers()("resident")

    def mark_updated(self):
        self.updated += 1


class Actor:
    """Log-probs of -1; remembers the samples it was to learn from."""

    def __init__(self):
        self.samples = None

    def logprobs(self, pairs):
        return [np.full(len(response), -1.0, np.float32) for _, response in pairs]

    def train_step(self, samples, **_):
        self.samples = samples
        return TrainStats(*[0] * len(fields(TrainStats)))


class Critic:
    """Values everything at 0."""

    def values(self, pairs):
        return [np.zeros(len(response), np.float32) for _, response in pairs]

    def train_step(self, samples, **_):
        return CriticStats(*[0] * len(fields(CriticStats)))


class Trainable:
    def configure(self, optimizer): ...

    def set_learning_rate(self, rate): ...


def context_for(**algorithm):
    training = RoleTrainingConfig(prompts_per_step=2, mini_batches=1, group_size=2)
    settings = SimpleNamespace(
        algorithm=AlgorithmConfig(**algorithm),
        generation=GenerationConfig(max_new_tokens=MAX_TOKENS),
        training=lambda phase: training,
    )
    return SimpleNamespace(
        settings=settings,
        bank=Bank(),
        actor=Actor(),
        trainable=Trainable(),
        critic=Critic(),
        architecture=ARCH,
        timers=Timers(),
        role=lambda phase: Resident.FOLLOWER,
        seed=lambda *labels: 0,
    )


def step(rewards, *, lengths=None, groups=(0, 0, 1, 1), **algorithm):
    context = context_for(**algorithm)
    rewarded = []
    for reward, group, length in zip(rewards, groups, lengths or [2] * len(rewards), strict=True):
        reason = FinishReason.STOP if length < MAX_TOKENS else FinishReason.LENGTH
        logprobs = np.full(length, -1.0, np.float32)
        rollout = Rollout(np.array([1]), np.zeros(length, np.int64), logprobs, f"says {group}", reason, "follower@3")
        rewarded.append(RewardedRollout(rollout, group, reward, {}))
    values = learn(context, UnitKey(1, Phase.FOLLOWER, 0), 1, rewarded)
    return values, context.actor.samples, context.bank.updated


@pytest.mark.parametrize("advantage", list(Advantage))
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_is_refused_by_its_row(advantage, bad):
    with pytest.raises(BadRewardError) as caught:
        step([1.0, 0.0, bad, None], advantage=advantage)
    text = str(caught.value)
    assert text.startswith(f"row 2 (group 1): a reward of {bad} is neither finite nor missing")
    assert "\n" not in text and "'says 1'" in text


@pytest.mark.parametrize("rewards", [[1.0, 1.0, 0.0, 0.0], [None] * 4, [1.0, None, None, 0.0]])
def test_without_a_signal_nothing_is_updated(rewards):
    values, samples, updated = step(rewards)
    assert (samples, updated) == (None, 0)
    assert values["groups/used"] == 0
    assert values["groups/zero_variance"] + values["groups/missing"] == 2


@pytest.mark.parametrize("advantage", list(Advantage))
@pytest.mark.parametrize("correction", [Correction.none, Correction.sequence_cut])
def test_responses_without_tokens_count_in_their_group_and_nowhere_else(advantage, correction):
    values, samples, _ = step([1.0, 0.0, 1.0, 0.0], lengths=[0, 2, 2, 0], advantage=advantage, correction=correction)
    _, full, _ = step([1.0, 0.0, 1.0, 0.0], advantage=advantage, correction=correction)
    assert [len(sample.advantages) for sample in samples] == [0, 2, 2, 0]
    assert all(np.isfinite(sample.advantages).all() for sample in samples)
    if advantage not in (
        Advantage.reinforce_pp,
        Advantage.reinforce_pp_baseline,
        Advantage.gae,
    ):  # those normalise over all tokens
        assert samples[1].advantages.tolist() == full[1].advantages.tolist()
    assert values["mismatch/ratio"] == 1.0


@pytest.mark.parametrize("correction", [Correction.none, Correction.token_mask])
@pytest.mark.parametrize("advantage", list(Advantage))
def test_a_step_of_responses_without_tokens_is_no_fault(correction, advantage):
    values, samples, _ = step([1.0, 0.0, 1.0, 0.0], lengths=[0] * 4, correction=correction, advantage=advantage)
    assert len(samples) == 4 and "mismatch/ratio" not in values
    assert all(math.isfinite(value) for value in values.values())


def test_a_response_that_fills_the_budget_is_learned_from_and_loses_the_whole_overlong_reward():
    _, samples, _ = step([1.0, 1.0, 1.0, 0.0], lengths=[2, MAX_TOKENS, 2, 2], overlong_buffer_tokens=2)
    assert [len(sample.advantages) for sample in samples] == [2, MAX_TOKENS, 2, 2]
    below, above = samples[1].advantages[0], samples[0].advantages[0]
    assert above == -below == pytest.approx(1 / math.sqrt(2), rel=1e-4)
