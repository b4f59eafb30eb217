"""The KL coefficient of a step is what the metrics of the phase's earlier steps make it."""

from types import SimpleNamespace

import pytest

from seif_nemo.config.algorithm import AdaptiveKlConfig, AlgorithmConfig, RoleTrainingConfig
from seif_nemo.evolution import kl_control
from seif_nemo.evolution.changed_files import ChangedFileError
from seif_nemo.evolution.kl_control import kl_coefficient
from seif_nemo.evolution.paths import RunPaths
from seif_nemo.observability.metrics import MetricsWriter
from seif_nemo.types.records import Phase, StepMetrics, UnitKey


@pytest.fixture
def context(tmp_path, monkeypatch):
    monkeypatch.setattr(kl_control, "broadcast_float", lambda value, topology: value)
    training = RoleTrainingConfig(prompts_per_step=4, mini_batches=1, kl_coefficient=0.1)
    algorithm = AlgorithmConfig(
        adaptive_kl=AdaptiveKlConfig(target=0.05, horizon=100), instructor=training, follower=training
    )
    settings = SimpleNamespace(algorithm=algorithm, training=lambda phase: training)
    return SimpleNamespace(settings=settings, paths=RunPaths(tmp_path), topology=None, is_main=True)


def write(context, round, phase, step, **values):
    with MetricsWriter(context.paths.metrics) as writer:
        metrics = {f"train/{name}": float(value) for name, value in values.items()}
        writer.write(StepMetrics(UnitKey(round, phase, step), 0.0, metrics))


def test_it_is_folded_over_the_phases_earlier_steps(context):
    key = UnitKey(2, Phase.FOLLOWER, 4)
    write(context, 1, Phase.FOLLOWER, 0, kl=9.0, num_samples=20, num_updates=1)  # another round
    write(context, 2, Phase.INSTRUCTOR, 0, kl=9.0, num_samples=20, num_updates=1)  # another phase
    write(context, 2, Phase.FOLLOWER, 0, kl=9.0, num_samples=20, num_updates=1)  # redone below
    write(context, 2, Phase.FOLLOWER, 0, kl=0.055, num_samples=20, num_updates=2)
    write(context, 2, Phase.FOLLOWER, 1)  # nothing to learn from
    write(context, 2, Phase.FOLLOWER, 2, kl=0.0, num_samples=20, num_updates=0)  # all skipped
    write(context, 2, Phase.FOLLOWER, 3, kl=0.01, num_samples=10, num_updates=1)
    write(context, 2, Phase.FOLLOWER, 4, kl=9.0, num_samples=20, num_updates=1)  # this very step, before a kill
    assert kl_coefficient(context, key) == pytest.approx(0.1 * (1 + 0.1 * 0.2) * (1 - 0.2 * 0.1), rel=1e-12)
    assert kl_coefficient(context, UnitKey(2, Phase.FOLLOWER, 0)) == 0.1


def test_a_step_that_is_not_in_the_metrics_is_an_error(context):
    with pytest.raises(ChangedFileError, match=r"metrics\.jsonl lacks steps of round 2, follower"):
        kl_coefficient(context, UnitKey(2, Phase.FOLLOWER, 1))


def test_without_a_target_it_stays(context):
    context.settings.algorithm.adaptive_kl.target = None
    assert kl_coefficient(context, UnitKey(2, Phase.FOLLOWER, 3)) == 0.1
