"""The learning rate of a step is the schedule's, wherever the phase is taken up."""

from contextlib import nullcontext
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest

from seif_nemo.config.algorithm import AlgorithmConfig, OptimizerConfig, RoleTrainingConfig
from seif_nemo.evolution import grpo
from seif_nemo.types.records import Phase
from seif_nemo.types.residents import Resident
from seif_nemo.types.training import TrainStats

OPTIMIZER = OptimizerConfig(learning_rate=1e-3, warmup_steps=2, final_learning_rate_share=0.1)


class _Trainable:
    learning_rate = 0.0

    def configure(self, optimizer):
        self.learning_rate = optimizer.learning_rate

    def set_learning_rate(self, learning_rate):
        self.learning_rate = learning_rate

    def reset_optimizer(self): ...


class _Timers:
    def __call__(self, name):
        return nullcontext()

    def reset(self): ...


def _rates(first, monkeypatch):
    """Learning rate with which each step from `first` on learns, of six."""
    rates: list[float] = []

    def train_step(samples, **_):
        rates.append(context.trainable.learning_rate)
        return TrainStats(*[0] * len(fields(TrainStats)))

    def learn(context, key, total_steps, _):
        return grpo.update_policy(context, key, total_steps, [], num_groups=1, coefficient=0.0)

    context: Any = SimpleNamespace(
        ledger=SimpleNamespace(next_step=lambda *_: first),
        replan=lambda *_: None,
        role=lambda _: Resident.FOLLOWER,
        settings=SimpleNamespace(
            training=lambda _: RoleTrainingConfig(optimizer=OPTIMIZER),
            checkpoint=SimpleNamespace(every_steps=100),
            algorithm=AlgorithmConfig(),
        ),
        bank=SimpleNamespace(switch=lambda _: None, digest=lambda _: "", mark_updated=lambda: None),
        actor=SimpleNamespace(train_step=train_step),
        critic=None,
        architecture=None,
        measured=dict,
        topology=SimpleNamespace(world_size=1),
        seed=lambda *_: 0,
        trainable=_Trainable(),
        timers=_Timers(),
        stop=SimpleNamespace(is_asked=lambda: False),
        finish_step=lambda *_: None,
        saver=SimpleNamespace(settle=lambda **_: None),
    )
    monkeypatch.setattr(grpo, "sample_step", lambda *_: lambda: ([], {}))
    monkeypatch.setattr(grpo, "learn", learn)
    for name in ("save", "log_samples", "resume_upcoming"):
        monkeypatch.setattr(grpo, name, lambda *_: None)
    for name in ("length_values", "speed_values", "work_values", "peak_of"):
        monkeypatch.setattr(grpo, name, lambda *_, **__: {})
    grpo.run_training_phase(context, 1, Phase.FOLLOWER, 6, lambda *_: lambda: ([], {}))
    return rates


@pytest.mark.parametrize("first", [1, 3, 5])
def test_a_resumed_phase_has_the_rate_of_its_step_and_not_the_peak(first, monkeypatch):
    whole = _rates(0, monkeypatch)
    assert whole == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3, 7e-4, 4e-4, 1e-4])
    assert _rates(first, monkeypatch) == whole[first:]
