"""Residents and checkpoints of mixture-of-experts models: exact continuation, and any layout loads any other's."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from seif_nemo.checkpointing.store import CheckpointStore
from seif_nemo.models.architecture import read_architecture
from seif_nemo.parallel.topology import shutdown
from seif_nemo.weights.bank import RoleBank
from seif_nemo.weights.hf import export_hf
from seif_nemo.weights.role_digest import RoleSums
from tests.dist.harness import run_ranks
from tests.dist.test_experts import Case, Layout, build, build_actor, samples
from tests.tiny_hf import make_tiny_hf

ROLE = "follower"
CASE = Case("qwen3_moe", 0.3)
LAYOUTS = {
    "one": Layout(1),
    "experts": Layout(2, expert=2),
    "inside_tensor": Layout(2, tensor=2, sequence=True, expert=2, expert_tensor=1),
    "pipeline": Layout(4, pipeline=2, expert=2),
}


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    bits: bytes  # weights and moments of this rank
    digest: str


class Run:
    """A world with a bank whose follower is trained and resident, and a store."""

    def __init__(self, layout: Layout, model: Path, root: Path, dtype: torch.dtype = torch.float32) -> None:
        self.model = model
        self.topology = build(layout)
        self.trainable, self.actor = build_actor(self.topology, model, CASE, dtype)
        self.bank = RoleBank(self.trainable, RoleSums(self.trainable.modules, read_architecture(model), self.topology))
        self.bank.add("base", trained=False)
        self.bank.add(ROLE, trained=True)
        self.store = CheckpointStore(root, self.topology)

    def train(self, step: int) -> None:
        chosen = samples()[step : step + 4]
        self.actor.train_step(chosen, kl_coefficient=0.0, mini_batches=2, seed=step)
        self.bank.mark_updated()

    def seen(self) -> Seen:
        buffers = [*self.trainable.weight_buffers(), *self.trainable.moment_buffers()]
        return Seen(b"".join(buffer.view(torch.uint8).numpy().tobytes() for buffer in buffers), self.bank.digest(ROLE))

    def export(self, path: Path) -> None:
        arch = read_architecture(self.model)
        export_hf(self.trainable.modules, arch, self.topology, path, source_dir=self.model)


def train_and_save(
    layout: Layout, model: Path, root: Path, name: str, dtype: torch.dtype = torch.float32
) -> tuple[Seen, Seen, Seen]:
    """What there is at the save, after a third step, and after that step in a new run that loads and swaps first."""
    run = Run(layout, model, root, dtype)
    run.train(0)
    run.train(1)
    run.store.save(run.trainable, run.bank, root / name)
    saved = run.seen()
    run.export(root / f"{name}-saved")
    run.train(2)
    after = run.seen()
    run.export(root / f"{name}-after")
    shutdown(run.topology)
    run = Run(layout, model, root, dtype)
    run.train(3)  # whatever there was before must not matter
    run.bank.switch("base")
    run.store.load(run.trainable, run.bank, ROLE, root / name, expect_digest=saved.digest)
    again = run.seen()
    assert again.bits == saved.bits
    run.bank.switch("base")
    run.bank.switch(ROLE)
    run.train(2)
    repeated = run.seen()
    shutdown(run.topology)
    return saved, after, repeated


def load_and_train(layout: Layout, model: Path, root: Path, names: list[str]) -> list[int]:
    run = Run(layout, model, root)
    steps: list[int] = []
    for name in names:
        role = f"from-{name}"
        run.bank.switch("base")
        run.bank.add(role, trained=True)
        run.store.load(run.trainable, run.bank, role, root / name)
        label = f"{name}-{layout.world}-{layout.pipeline}"
        run.export(root / f"{label}-saved")
        run.train(2)
        run.export(root / f"{label}-after")
        steps.append(run.trainable.step_count)
    shutdown(run.topology)
    return steps


def weights(path: Path) -> dict[str, Tensor]:
    return load_file(path / "model.safetensors")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_hf(tmp_path_factory.mktemp("state") / "model", CASE.family, num_hidden_layers=2)


def test_a_loaded_or_returned_role_continues_to_the_bit_in_every_layout(model: Path, tmp_path: Path) -> None:
    for name, layout in LAYOUTS.items():
        for saved, after, repeated in run_ranks(layout.world, train_and_save, layout, model, tmp_path, name):
            assert repeated.bits == after.bits, name
            assert repeated.bits != saved.bits, name
            assert repeated.digest == after.digest, name
    for target in ("one", "pipeline"):
        layout = LAYOUTS[target]
        names = [name for name in LAYOUTS if name != target]
        assert run_ranks(layout.world, load_and_train, layout, model, tmp_path, names)[0] == [6] * len(names)
        for name in names:
            label = f"{name}-{layout.world}-{layout.pipeline}"
            expected, actual = weights(tmp_path / f"{name}-saved"), weights(tmp_path / f"{label}-saved")
            assert all(torch.equal(actual[key], value) for key, value in expected.items()), label
            start, end = expected, weights(tmp_path / f"{name}-after")
            for key, value in weights(tmp_path / f"{label}-after").items():
                change = (end[key] - start[key]).abs().max()
                assert (value - end[key]).abs().max() <= 2e-3 * change, (label, key)


def test_main_parameters_of_experts_come_back_to_the_bit(model: Path, tmp_path: Path) -> None:
    args = (LAYOUTS["experts"], model, tmp_path, "bf16", torch.bfloat16)
    for saved, after, repeated in run_ranks(2, train_and_save, *args):
        assert repeated.bits == after.bits
        assert repeated.bits != saved.bits
