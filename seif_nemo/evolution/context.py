"""What every phase works with. Made by `build.py`, read by the phases; holds no algorithm."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from seif_nemo.checkpointing.store import CheckpointStore
from seif_nemo.components.actor import Actor
from seif_nemo.components.critic import Critic
from seif_nemo.components.reward import Reward
from seif_nemo.components.speaker import Speaker
from seif_nemo.data.streams import derive_seed
from seif_nemo.evolution.gate import Gate
from seif_nemo.evolution.ledger import Ledger
from seif_nemo.evolution.material import Material, Settings
from seif_nemo.evolution.paths import RunPaths
from seif_nemo.evolution.plan import plan_run
from seif_nemo.evolution.saving import Saver
from seif_nemo.evolution.stopping import StopRequest
from seif_nemo.models.architecture import Architecture
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.observability.metrics import MetricsWriter
from seif_nemo.observability.progress import Progress
from seif_nemo.observability.timers import Timers
from seif_nemo.parallel.collectives import max_over_ranks
from seif_nemo.parallel.topology import Topology
from seif_nemo.protocols.tokenizer import Tokenizer
from seif_nemo.types.records import Phase, StepMetrics, UnitKey
from seif_nemo.types.residents import Resident
from seif_nemo.weights.bank import RoleBank
from seif_nemo.weights.role_digest import FrozenBase


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    settings: Settings
    paths: RunPaths
    topology: Topology
    architecture: Architecture
    material: Material
    trainable: TrainableModel
    base: FrozenBase | None  # what the residents are adapters on, if they are
    tokenizer: Tokenizer
    bank: RoleBank
    actor: Actor
    critic: Critic | None  # for advantages by GAE
    speaker: Speaker
    reward: Reward
    gate: Gate
    ledger: Ledger
    checkpoints: CheckpointStore
    saver: Saver
    metrics: MetricsWriter | None  # on the main rank
    progress: Progress | None  # on the main rank
    timers: Timers
    stop: StopRequest

    @property
    def is_main(self) -> bool:
        """Whether this rank writes the run's files."""
        return self.topology.is_main

    def may_write(self) -> bool:
        """Whether this rank writes the run's files now. Raises FencedOutError once a newer attempt has started."""
        if self.is_main:
            self.ledger.check_fence()
        return self.is_main

    def seed(self, *labels: str | int) -> int:
        """The seed of one random stream of this run."""
        return derive_seed(self.settings.seed, *labels)

    def finish(
        self,
        key: UnitKey,
        values: Mapping[str, float],
        *,
        digests: Mapping[str, str],
    ) -> None:
        """Log a unit's metrics and record it in the ledger; then stop if asked to. Collective."""
        assert not self.saver.is_busy, "a unit cannot be finished before the training step that it follows"
        metrics = self._log(key, values)
        self.ledger.append(key, digests=dict(digests))
        self._show(metrics)
        self.stop.raise_if_asked()

    def finish_step(self, key: UnitKey, values: Mapping[str, float]) -> None:
        """Log a training step's metrics. It is in the ledger once its weights are on disk. Collective.

        Until then it would be redone after a kill, and a request to stop waits for a step that is saved.
        """
        metrics = self._log(key, values)
        is_recorded = self.saver.measured(key)
        self._show(metrics)
        if is_recorded:
            self.stop.raise_if_asked()

    def _log(self, key: UnitKey, values: Mapping[str, float]) -> StepMetrics:
        metrics = StepMetrics(key, time.time(), {**values, **self.saver.values()})
        if self.may_write() and self.metrics is not None:
            self.metrics.write(metrics)
        return metrics

    def _show(self, metrics: StepMetrics) -> None:
        if self.progress is not None:
            self.progress.update(metrics)

    def measured(self) -> dict[str, float]:
        """Seconds on this rank and memory of the rank that had most, by part of the unit. Collective; starts anew."""
        seconds, peaks = self.timers.drain(), self.timers.drain_peaks()
        # A rank that cannot measure says nothing, and all ranks open the same timers.
        highest = max_over_ranks([peaks.get(name, 0.0) for name in sorted(seconds)], self.topology)
        memory = {f"memory_gib/{name}": peak for name, peak in zip(sorted(seconds), highest, strict=True) if peak}
        return {f"time_s/{name}": value for name, value in seconds.items()} | memory

    def replan(self, round: int, phase: Phase, num_steps: int) -> None:
        """Tell the progress line how many steps a phase has, now that it is known."""
        if self.progress is not None:
            self.progress.replan(plan_run(self.settings, self.material, known={(round, phase): num_steps}))

    def sync(self) -> None:
        """Wait for every rank, so that what the main rank has written can be read by all. Collective."""
        self.stop.agree(False)

    def role(self, phase: Phase) -> Resident:
        return Resident.INSTRUCTOR if phase is Phase.INSTRUCTOR else Resident.FOLLOWER
