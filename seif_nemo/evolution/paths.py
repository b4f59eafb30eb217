"""Where things lie in a run directory."""

from dataclasses import dataclass
from pathlib import Path

from seif_nemo.types.records import Phase


@dataclass(frozen=True, slots=True)
class RunPaths:
    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def provenance(self) -> Path:
        return self.root / "provenance.json"

    @property
    def attempts(self) -> Path:
        return self.root / "attempts"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.jsonl"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    def round(self, round: int) -> Path:
        return self.root / "rounds" / f"{round:02d}"

    def instructions(self, round: int) -> Path:
        return self.round(round) / "q.parquet"

    def rejected(self, round: int) -> Path:
        return self.round(round) / "rejected.parquet"

    def synthesis_part(self, round: int, step: int) -> Path:
        return self.round(round) / "synthesis" / f"part-{step:04d}.jsonl"

    def checkpoint(self, round: int, phase: Phase, step: int) -> Path:
        return self.round(round) / phase.value / f"step-{step:04d}"

    def critic_checkpoint(self, checkpoint: Path) -> Path:
        """That of the critic of the same step."""
        return checkpoint.parent / "critic" / checkpoint.name

    def step_samples(self, round: int, phase: Phase) -> Path:
        return self.round(round) / phase.value / "samples.jsonl"

    def bad_batch(self, round: int, phase: Phase, step: int) -> Path:
        """A mini-batch whose gradients were not finite."""
        return self.round(round) / phase.value / f"not-finite-{step:04d}.jsonl"

    def phase_samples(self, round: int, phase: Phase) -> Path:
        return self.round(round) / f"{phase.value}_samples.jsonl"

    def export(self, round: int) -> Path:
        return self.root / "export" / f"follower-{round:02d}"

    def export_adapter(self, round: int) -> Path:
        return self.export(round).with_name(f"follower-{round:02d}-adapter")
