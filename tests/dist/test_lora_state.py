"""Roles that are adapters: swapped, saved and resumed by themselves, and never put onto another base."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.filesystem import FileSystemReader

from seif_nemo.checkpointing.manifest import CheckpointError
from seif_nemo.checkpointing.store import CheckpointStore
from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.config.roles import LoraConfig, Projection
from seif_nemo.models.builder import build_gpt
from seif_nemo.models.lora import add_adapters, is_of_adapter
from seif_nemo.parallel.second_layout import add_layout
from seif_nemo.parallel.topology import shutdown
from seif_nemo.weights.bank import RoleBank
from seif_nemo.weights.hf import export_hf, load_hf_weights
from seif_nemo.weights.peft import export_adapter, load_adapter
from seif_nemo.weights.refit import Refit
from seif_nemo.weights.role_digest import FrozenBase, RoleSums, digest_of_hf
from tests.dist.harness import run_ranks
from tests.dist.lora_model import ALL, VOCAB, Layout, build, make_actor, samples
from tests.tiny_hf import make_tiny_hf
from tests.tiny_lora import make_adapter

ROLE, OTHER = "follower", "instructor"
ONE = Layout("one")
PAIRS = [
    Layout("tp2 sp", {"tensor": 2, "sequence": True}),
    Layout("pp2 vpp2", {"pipeline": 2, "virtual_pipeline": 2}),
    Layout("dp2"),
]


class Run:
    """A bank of two trained roles and their base, and a store."""

    def __init__(self, layout: Layout, base: Path, root: Path, lora: LoraConfig = ALL) -> None:
        # With a value head, as for PPO: it learns with the adapters and is saved with them.
        self.model = build(layout, base, lora, None, with_value_head=True)
        self.lora, self.path = lora, base
        trainable, arch, topology = self.model.trainable, self.model.arch, self.model.topology
        sums = RoleSums(trainable.modules, arch, topology, lora)
        self.base = FrozenBase(trainable.modules, sums)
        self.bank = RoleBank(trainable, sums)
        for name in ("base", OTHER, ROLE):
            self.bank.add(name, trained=name != "base")
        self.store = CheckpointStore(root, topology, base=self.base)
        self.actor = make_actor(self.model)

    def train(self, step: int) -> None:
        self.actor.train_step(samples(step), kl_coefficient=0.05, mini_batches=2, seed=step)
        self.bank.mark_updated()

    def bits(self) -> bytes:
        buffers = [*self.model.trainable.weight_buffers(), *self.model.trainable.moment_buffers()]
        return b"".join(buffer.view(torch.uint8).numpy().tobytes() for buffer in buffers)

    def export(self, out: Path) -> None:
        model, digest = self.model, self.base.digest
        export_adapter(
            model.modules, model.arch, model.topology, out, self.lora, base_dir=self.path, base_digest=digest
        )

    def load(self, path: Path, digest: str | None = None) -> None:
        self.store.load(self.model.trainable, self.bank, ROLE, path, expect_digest=digest)

    def close(self) -> None:
        shutdown(self.model.topology)


@dataclass(frozen=True, slots=True)
class Saved:
    at_save: bytes
    at_end: bytes
    digest: str
    base_digest: str
    tensors: list[str]  # in the checkpoint


def save(layouts: list[Layout], base: Path, root: Path) -> list[Saved]:
    """Two steps of one role, one of the other between them, a save, a third step."""
    found: list[Saved] = []
    for layout in layouts:
        run = Run(layout, base, root)
        run.train(0)
        before = run.bits()
        run.bank.switch(OTHER)
        assert run.bits() != before
        run.train(5)
        run.bank.switch(ROLE)
        assert run.bits() == before
        run.train(1)
        saved = run.store.save(run.model.trainable, run.bank, root / layout.name)
        run.export(root / f"{layout.name} saved")
        at_save = run.bits()
        run.train(2)
        run.export(root / f"{layout.name} end")
        assert saved.manifest.base_digest is not None
        tensors = list(FileSystemReader(root / layout.name).read_metadata().state_dict_metadata)
        found.append(Saved(at_save, run.bits(), saved.manifest.weights_digest, saved.manifest.base_digest, tensors))
        run.close()
    return found


def load(layout: Layout, names: list[str], base: Path, root: Path, digests: list[str]) -> list[tuple[bytes, bytes]]:
    """Each checkpoint, of whatever layout, loaded into this one and continued."""
    found: list[tuple[bytes, bytes]] = []
    for name, digest in zip(names, digests, strict=True):
        run = Run(layout, base, root)
        run.train(7)  # whatever there was before must not matter
        run.bank.switch("base")
        run.load(root / name, digest)
        run.export(root / f"{name} in {layout.name}")
        loaded = run.bits()
        run.train(2)
        run.export(root / f"{name} in {layout.name} end")
        found.append((loaded, run.bits()))
        run.close()
    return found


def load_pairs(base: Path, root: Path, digests: list[str]) -> list[list[tuple[bytes, bytes]]]:
    *own, of_one = digests
    return [
        load(layout, [layout.name, "one"], base, root, [digest, of_one])
        for layout, digest in zip(PAIRS, own, strict=True)
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_hf(tmp_path_factory.mktemp("base") / "qwen2", tie_word_embeddings=True, vocab_size=VOCAB)


def test_any_layout_continues_any_other_s_adapters(base: Path, tmp_path: Path) -> None:
    pairs = run_ranks(2, save, PAIRS, base, tmp_path)
    ((single,),) = run_ranks(1, save, [ONE], base, tmp_path)
    names = [layout.name for layout in PAIRS]
    digests = [each.digest for each in pairs[0]]
    for each in (*pairs[0], *pairs[1]):
        assert each.base_digest == digest_of_hf(base, torch.float32)
        assert all(".lora.linear_" in name or "value_head." in name for name in each.tensors), each.tensors
    (here,) = run_ranks(1, load, ONE, [*names, "one"], base, tmp_path, [*digests, single.digest])
    assert here[-1] == (single.at_save, single.at_end)
    there = run_ranks(2, load_pairs, base, tmp_path, [*digests, single.digest])
    for rank, saved in zip(there, pairs, strict=True):
        for (own, _), each in zip(rank, saved, strict=True):
            assert own == (each.at_save, each.at_end)
    for name in names:
        check_continuation(tmp_path, name, "one")
        check_continuation(tmp_path, "one", name)


def check_continuation(root: Path, name: str, layout: str) -> None:
    """What was loaded is what was saved, to the bit; what follows is what followed there, moments included."""
    saved, end, loaded, continued = (
        load_file(root / folder / "adapter_model.safetensors")
        for folder in (f"{name} saved", f"{name} end", f"{name} in {layout}", f"{name} in {layout} end")
    )
    for key, value in saved.items():
        assert torch.equal(loaded[key], value), (name, layout, key)
        change = end[key] - value
        assert change.abs().max() > 1e-4
        torch.testing.assert_close(continued[key] - value, change, rtol=1e-3, atol=4e-6)


def mix_up(base: Path, other: Path, root: Path) -> list[str]:
    """Adapters and bases that do not belong together, and a base that somebody wrote to."""
    run = Run(ONE, base, root)
    run.store.save(run.model.trainable, run.bank, root / "step")
    run.export(root / "adapter")
    parameters = dict(run.model.modules[0].named_parameters())
    weight = parameters["decoder.layers.1.mlp.linear_fc2.weight"]
    errors: list[str] = []
    with torch.no_grad():
        weight[3, 5] += 1e-6
    for action in (
        lambda: run.load(root / "step"),
        lambda: run.store.save(run.model.trainable, run.bank, root / "step-2"),
    ):
        with pytest.raises(CheckpointError) as caught:
            action()
        errors.append(str(caught.value))
    run.close()
    run = Run(ONE, other, root)
    model = run.model
    run.export(root / "own")
    run.export(root / "again")
    for path in (root / "own").iterdir():
        assert path.read_bytes() == (root / "again" / path.name).read_bytes(), path.name
    load_adapter(model.modules, model.arch, model.topology, root / "own", ALL, base_digest=run.base.digest)
    with pytest.raises(ValueError) as refused:
        load_adapter(model.modules, model.arch, model.topology, root / "adapter", ALL, base_digest=run.base.digest)
    errors.append(str(refused.value))
    before = run.bits()
    with pytest.raises(CheckpointError) as caught:
        run.load(root / "step")
    errors.append(str(caught.value))
    assert run.bits() == before
    run.store = CheckpointStore(root, run.model.topology)  # a run with whole weights
    with pytest.raises(CheckpointError) as caught:
        run.load(root / "step")
    errors.append(str(caught.value))
    run.close()
    return errors


def test_adapters_are_never_put_onto_another_base(base: Path, tmp_path: Path) -> None:
    other = make_tiny_hf(tmp_path / "other", tie_word_embeddings=True, vocab_size=VOCAB, seed=1)
    (errors,) = run_ranks(1, mix_up, base, other, tmp_path / "run")
    digest, digest_of_other = (digest_of_hf(path, torch.float32) for path in (base, other))
    changed = "model.layers.1.mlp.down_proj.weight of the frozen base model is not what was loaded"
    saved = f"{tmp_path}/run/step: adapters on the base model {digest} were saved, this run has"
    assert errors == [
        changed,
        changed,
        f"roles.lora.adapter={tmp_path}/run/adapter belongs to another base model than model.path holds (digest "
        f"{digest}, not {digest_of_other}): choose the model that it was trained on",
        f"{saved} adapters on the base model {digest_of_other} (roles.mode, model.path)",
        f"{saved} whole weights (roles.mode, model.path)",
    ]


REFITS = [
    ({"tensor": 2, "sequence": True}, {}),
    ({}, {"tensor": 2}),
    ({"pipeline": 2, "virtual_pipeline": 2}, {"tensor": 2, "sequence": True}),
    ({"tensor": 2}, {"pipeline": 2}),
]


def refit(base: Path, lora: LoraConfig, adapter: Path, root: Path) -> list[list[str]]:
    """Digests of the adapter sent and arrived, and where the generation layout's adapter and weights lie."""
    found: list[list[str]] = []
    for number, (train, generate) in enumerate(REFITS):
        model = build(Layout("train", train), base, lora, adapter)
        second = add_layout(ParallelConfig(**generate), model.topology)
        with second.in_place():
            modules = build_gpt(model.arch, second.topology, dtype=torch.float32, max_sequence_length=64)
            add_adapters(modules, model.arch, second.topology, lora, seed=1)
            load_hf_weights(modules, model.arch, second.topology, base)
        moves = Refit(
            model.modules, model.topology, modules, second.topology, model.arch, bucket_bytes=4_000, lora=lora
        )
        sums = RoleSums(model.modules, model.arch, model.topology, lora)
        sent = sums.join(sums.of(model.trainable.weight_views(model.trainable.weight_buffers())))
        moves.run(sent)
        out = root / str(number)
        with second.in_place():
            export_adapter(modules, model.arch, second.topology, out / "adapter", lora, base_dir=base)
            export_hf(modules, model.arch, second.topology, out / "merged", source_dir=base)
        found.append([sent, moves.digest()])
        shutdown(model.topology)
    return found


def test_adapters_alone_go_to_the_generation_layout(base: Path, tmp_path: Path) -> None:
    lora = LoraConfig(rank=2, targets=[Projection.k_proj, Projection.o_proj, Projection.up_proj, Projection.down_proj])
    adapter = make_adapter(tmp_path / "given", base, lora)
    expected, before = load_file(adapter / "adapter_model.safetensors"), load_file(base / "model.safetensors")
    first, second = run_ranks(2, refit, base, lora, adapter, tmp_path)
    assert first == second
    assert len({digest for pair in first for digest in pair}) == 1
    for number, _ in enumerate(REFITS):
        arrived = load_file(tmp_path / str(number) / "adapter" / "adapter_model.safetensors")
        assert arrived.keys() == expected.keys()
        assert all(torch.equal(arrived[name], value) for name, value in expected.items())
        merged = load_file(tmp_path / str(number) / "merged" / "model.safetensors")
        moved = {name for name, value in before.items() if not torch.equal(merged[name], value)}
        assert moved == {name for name in before if any(f".{each.value}.weight" in name for each in lora.targets)}


def experts_in_attention(base: Path) -> list[str]:
    """What learns of a model with experts whose attention has adapters, and the refusal of adapters inside experts."""
    attention = LoraConfig(rank=2, targets=[Projection.q_proj, Projection.o_proj])
    model = build(Layout("one"), base, attention, None)
    stats = make_actor(model).train_step(samples(0), kl_coefficient=0.05, mini_batches=2, seed=0)
    assert stats.grad_norm > 0
    names = [name for name, parameter in model.modules[0].named_parameters() if parameter.requires_grad]
    assert all(is_of_adapter(name) for name in names)
    shutdown(model.topology)
    with pytest.raises(ValueError) as caught:
        build(Layout("one"), base, LoraConfig(targets=[Projection.q_proj, Projection.up_proj]), None)
    return [*names, str(caught.value)]


def test_experts_get_no_adapters(tmp_path: Path) -> None:
    base = make_tiny_hf(tmp_path / "moe", "qwen3_moe", vocab_size=VOCAB, num_hidden_layers=1)
    (found,) = run_ranks(1, experts_in_attention, base)
    assert found[:-1] == [
        f"decoder.layers.0.lora.{linear}.weight_{half}" for linear in ("linear_qkv", "linear_proj") for half in "ab"
    ]
    assert found[-1] == (
        "roles.lora.targets=[q_proj,up_proj] names projections inside the experts of this model, which get no "
        "adapters: choose [q_proj]"
    )
