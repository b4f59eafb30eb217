"""Checkpoints of real models: exact continuation, other layouts, damage, kills."""

import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seif_nemo.checkpointing import store as store_module
from seif_nemo.checkpointing.manifest import CheckpointError
from seif_nemo.checkpointing.store import CheckpointStore
from seif_nemo.components.actor import Actor
from seif_nemo.config.algorithm import AlgorithmConfig, OptimizerConfig
from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.models.architecture import Architecture
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.topology import Topology, build_topology, shutdown
from seif_nemo.types.training import TrainSample
from seif_nemo.weights.bank import RoleBank
from seif_nemo.weights.role_digest import RoleSums
from tests.dist.harness import RankError, run_ranks
from tests.dist.tiny_gpt import TINY, VOCAB, FullWeights, build_tiny, local_weights, merge_weights

ROLE = "follower"


@dataclass(frozen=True, slots=True)
class Layout:
    tensor: int = 1
    pipeline: int = 1
    context: int = 1
    dtype: torch.dtype = torch.float32
    virtual: int = 1
    arch: Architecture = TINY
    offload: bool = False


PAIRS = {"tp2": Layout(tensor=2), "pp2": Layout(pipeline=2), "dp2": Layout(), "cp2": Layout(context=2)}


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """One rank's weights and Adam state, to the bit, and its weights by name."""

    tensor_rank: int
    bits: bytes
    step_count: int
    learning_rate: float
    weights: dict[str, np.ndarray]


class Run:
    """A world with a bank whose follower is trained and resident, and a store."""

    def __init__(self, layout: Layout, root: Path) -> None:
        self.topology: Topology = build_topology(
            ParallelConfig(
                tensor=layout.tensor,
                pipeline=layout.pipeline,
                context=layout.context,
                virtual_pipeline=layout.virtual,
            ),
            seed=0,
            threads=1,
            rendezvous_timeout_s=60,
        )
        modules = build_tiny(self.topology, layout.arch, layout.dtype)
        optimizer = OptimizerConfig(learning_rate=2e-3, weight_decay=0.1, epsilon=1e-5)
        self.trainable = TrainableModel(modules, modules[0].config, optimizer, self.topology, offload=layout.offload)
        self.trainable.after_weights_changed()
        self.actor = Actor(
            self.trainable,
            NoEngine(),  # pyright: ignore[reportArgumentType]
            OnlyPad(),  # pyright: ignore[reportArgumentType]
            self.topology,
            AlgorithmConfig(),
            TINY,
            micro_batch_tokens=40,
            max_new_tokens=16,
            temperature=1.0,
        )
        self.bank = RoleBank(self.trainable, RoleSums(self.trainable.modules, layout.arch, self.topology))
        self.bank.add("base", trained=False)
        self.bank.add(ROLE, trained=True)
        self.store = CheckpointStore(root, self.topology)

    def train(self, step: int) -> None:
        self.actor.train_step(samples(step), kl_coefficient=0.05, mini_batches=2, seed=step)
        self.bank.mark_updated()

    def state(self) -> State:
        buffers = [*self.trainable.weight_buffers(), *self.trainable.moment_buffers()]
        return State(
            self.topology.tensor_rank,
            b"".join(buffer.view(torch.uint8).numpy().tobytes() for buffer in buffers),
            self.trainable.step_count,
            self.trainable.learning_rate,
            local_weights(self.trainable.modules),
        )


class NoEngine:
    def invalidate_caches(self) -> None: ...


class OnlyPad:
    pad_id = 2


def samples(step: int) -> list[TrainSample]:
    rng = np.random.default_rng(step)
    lengths = [(int(rng.integers(1, 9)), int(rng.integers(1, 9))) for _ in range(6)]
    return [
        TrainSample(
            rng.integers(0, VOCAB, prompt),
            rng.integers(0, VOCAB, response),
            rng.normal(-4.2, 0.1, response).astype(np.float32),
            rng.normal(-4.2, 0.1, response).astype(np.float32),
            advantages=np.full(response, rng.normal(), dtype=np.float32),
            group=index,
        )
        for index, (prompt, response) in enumerate(lengths)
    ]


def train_and_save(layout: Layout, root: Path, name: str) -> tuple[State, State, str]:
    """Two steps, save, a third step. States at the save and at the end, and the bank's digest at the save."""
    run = Run(layout, root)
    run.train(0)
    run.train(1)
    run.trainable.set_learning_rate(1e-3)
    saved = run.store.save(run.trainable, run.bank, root / name)
    again = run.store.save(run.trainable, run.bank, root / name)
    assert again.digest == saved.digest, "two saves of one state differ"
    assert (again.manifest.role, again.manifest.origin, again.manifest.step_count) == (ROLE, "follower@2", 4)
    at_save = run.state()
    run.train(2)
    end = run.state()
    shutdown(run.topology)
    return at_save, end, saved.manifest.weights_digest


def load_and_continue(layout: Layout, root: Path, name: str, digest: str) -> tuple[State, State]:
    run = Run(layout, root)
    run.train(7)  # whatever there was before must not matter
    run.bank.switch("base")
    run.store.load(run.trainable, run.bank, ROLE, root / name, expect_digest=digest)
    assert run.bank.version == "follower@2"
    assert run.bank.digest(ROLE) == digest
    loaded = run.state()
    run.bank.switch("base")
    run.bank.switch(ROLE)
    run.train(2)
    end = run.state()
    shutdown(run.topology)
    return loaded, end


def save_pairs(root: Path) -> dict[str, tuple[State, State, str]]:
    return {name: train_and_save(layout, root, name) for name, layout in PAIRS.items()}


def load_pairs(root: Path, digests: dict[str, str]) -> tuple[dict[str, tuple[State, State]], list[str]]:
    loaded = {name: load_and_continue(layout, root, name, digests[name]) for name, layout in PAIRS.items()}
    return loaded, errors_of_a_pair(root, digests["pp2"])


def errors_of_a_pair(root: Path, digest: str) -> list[str]:
    """What this rank sees when the other rank's file is damaged, and when the main rank cannot write."""
    run = Run(PAIRS["pp2"], root)
    errors: list[str] = []
    if run.topology.is_main:
        shutil.copytree(root / "pp2", root / "damaged")
        flip_bit(root / "damaged" / "__1_0.distcp")
        (root / "a_file").write_text("")
    try:
        run.store.load(run.trainable, run.bank, ROLE, root / "damaged", expect_digest=digest)
    except CheckpointError as error:
        errors.append(str(error))
    try:
        run.store.save(run.trainable, run.bank, root / "a_file" / "step-0001")
    except (CheckpointError, OSError) as error:
        errors.append(type(error).__name__)
    shutdown(run.topology)
    return errors


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def merged(states: list[State], tensor: int) -> FullWeights:
    return merge_weights([(state.tensor_rank, state.weights) for state in states], tensor)


def load_other_layouts(root: Path, names: list[str]) -> dict[str, tuple[State, State]]:
    """Checkpoints of other layouts on one rank, each into its own trained role."""
    run = Run(Layout(), root)
    results: dict[str, tuple[State, State]] = {}
    for name in names:
        run.bank.switch("base")
        run.bank.add(name, trained=True)
        run.store.load(run.trainable, run.bank, name, root / name)
        assert run.bank.version == f"{name}=follower@2"
        loaded = run.state()
        run.train(2)
        results[name] = (loaded, run.state())
    shutdown(run.topology)
    return results


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def pairs(root: Path) -> list[dict[str, tuple[State, State, str]]]:
    """What each of two ranks saw as it saved; the checkpoints lie in `root`."""
    return run_ranks(2, save_pairs, root)


def test_two_ranks_continue_to_the_bit(pairs: list[dict[str, tuple[State, State, str]]], root: Path) -> None:
    digests = {name: pairs[0][name][2] for name in PAIRS}
    assert digests == {name: pairs[1][name][2] for name in PAIRS}
    results = run_ranks(2, load_pairs, root, digests)
    for saved, (loaded, errors) in zip(pairs, results, strict=True):
        for name in PAIRS:
            for expected, actual in zip(saved[name][:2], loaded[name], strict=True):
                assert actual.bits == expected.bits, name
                assert (actual.step_count, actual.learning_rate) == (expected.step_count, 1e-3)
        assert errors[0].startswith(f"{root / 'damaged' / '__1_0.distcp'} is damaged: digest")
    assert [errors[1] for _, errors in results] == ["NotADirectoryError", "WriteError"]


def test_other_layouts_load_on_one_rank(pairs: list[dict[str, tuple[State, State, str]]], root: Path) -> None:
    (results,) = run_ranks(1, load_other_layouts, root, list(PAIRS))
    for name, layout in PAIRS.items():
        loaded, end = results[name]
        at_save = merged([rank[name][0] for rank in pairs], layout.tensor)
        at_end = merged([rank[name][1] for rank in pairs], layout.tensor)
        assert (loaded.step_count, loaded.learning_rate) == (4, 1e-3)
        for key, value in at_save.items():
            assert np.array_equal(loaded.weights[key], value), (name, key)
            change = at_end[key] - value
            assert np.abs(change).max() > 1e-4
            np.testing.assert_allclose(end.weights[key] - value, change, rtol=1e-3, atol=2e-6)


def save_single(root: Path) -> dict[str, Any]:
    return {
        name: train_and_save(Layout(dtype=dtype), root, name)
        for name, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16}.items()
    }


def load_single(root: Path, digests: dict[str, str]) -> dict[str, Any]:
    return {
        name: load_and_continue(Layout(dtype=dtype), root, name, digests[name])
        for name, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16}.items()
    } | {
        "bf16 offloaded": load_and_continue(Layout(dtype=torch.bfloat16, offload=True), root, "bf16", digests["bf16"]),
        "rest": rest_of_a_single_rank(root, digests["fp32"]),
    }


def rest_of_a_single_rank(root: Path, digest: str) -> list[str]:
    """Frozen residents, weights without moments, and loads that fail and change nothing."""
    run = Run(Layout(), root)
    run.train(0)
    before = run.state()
    errors: list[str] = []

    def expect_error(name: str, damage: Any, expect: str | None = None) -> None:
        shutil.copytree(root / "fp32", root / name)
        damage(root / name)
        with pytest.raises(CheckpointError) as caught:
            run.store.load(run.trainable, run.bank, ROLE, root / name, expect_digest=expect)
        errors.append(str(caught.value).removeprefix(f"{root}/"))
        assert run.state().bits == before.bits
        assert (run.bank.version, run.trainable.step_count) == ("follower@1", 2)

    expect_error("truncated", lambda path: os.truncate(path / "__0_0.distcp", 1000))
    expect_error("flipped", lambda path: flip_bit(path / "common.pt"))
    expect_error("missing", lambda path: (path / ".metadata").unlink())
    expect_error("no_manifest", lambda path: (path / "manifest.json").unlink())
    expect_error("unexpected", lambda path: None, expect="0" * 32)

    with run.bank.resident("base"):
        run.store.save(run.trainable, run.bank, root / "base")
    assert run.state().bits == before.bits
    run.store.save(run.trainable, run.bank, root / "weights_only", with_optimizer=False)
    run.train(1)
    with run.bank.resident("base"):
        run.store.load(run.trainable, run.bank, "base", root / "weights_only")  # moments of the follower stay
        assert run.state().weights["decoder.final_layernorm.weight"].tolist() == list(
            before.weights["decoder.final_layernorm.weight"]
        )
    assert (run.bank.version_of("base"), run.trainable.step_count) == ("base=follower@1", 4)
    run.bank.switch("base")
    run.bank.add("fresh", trained=True)
    run.train(3)
    run.store.load(run.trainable, run.bank, "fresh", root / "weights_only")
    assert run.trainable.step_count == 0
    assert [float(buffer.abs().max()) for buffer in run.trainable.moment_buffers()] == [0.0, 0.0]
    return errors


def test_one_rank_continues_to_the_bit_and_survives_damage(root: Path) -> None:
    (saved,) = run_ranks(1, save_single, root)
    (loaded,) = run_ranks(1, load_single, root, {name: saved[name][2] for name in saved})
    for name in ("fp32", "bf16", "bf16 offloaded"):
        for expected, actual in zip(saved[name.split()[0]][:2], loaded[name], strict=True):
            assert actual.bits == expected.bits, name
            assert (actual.step_count, actual.learning_rate) == (expected.step_count, 1e-3)
    truncated, flipped, missing, no_manifest, unexpected = loaded["rest"]
    assert truncated.startswith("truncated/__0_0.distcp has 1000 bytes, ")
    assert flipped.startswith("flipped/common.pt is damaged: digest ")
    assert missing == "missing/.metadata is missing"
    assert no_manifest.startswith("no_manifest/manifest.json is missing")
    assert unexpected == f"unexpected/manifest.json: weights {saved['fp32'][2]}, but {'0' * 32} are expected"


def save_and_die(root: Path, moment: str) -> None:
    """Save step-1 once, then again after a train step, and be killed at a moment of the second save."""
    run = Run(Layout(), root)
    run.train(0)
    run.store.save(run.trainable, run.bank, root / "step-1")
    run.train(1)

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "before the manifest":
        store_module.write_manifest = die
    else:
        rename = Path.rename

        def rename_then_die(source: Path, target: Path) -> Path:
            moved = rename(source, target)
            if ".old-" in target.name:
                die()
            return moved

        setattr(Path, "rename", rename_then_die)  # noqa: B010
    run.store.save(run.trainable, run.bank, root / "step-1")


def load_after_death(root: Path) -> tuple[str, list[str], list[str]]:
    before = sorted(entry.name for entry in root.iterdir())
    run = Run(Layout(), root)
    run.store.load(run.trainable, run.bank, ROLE, root / "step-1")
    version = run.bank.version
    run.train(1)
    run.store.save(run.trainable, run.bank, root / "step-1")
    return version, before, sorted(entry.name for entry in root.iterdir())


@pytest.mark.parametrize("moment", ["before the manifest", "between the renames"])
def test_a_kill_leaves_the_old_checkpoint(moment: str, tmp_path: Path) -> None:
    with pytest.raises(RankError, match="rank 0 died with exit code -9"):
        run_ranks(1, save_and_die, tmp_path, moment)
    ((version, before, after),) = run_ranks(1, load_after_death, tmp_path)
    if moment == "before the manifest":
        assert before[0].startswith(".step-1.tmp-")
        assert before[1:] == ["step-1"]
    else:  # the old one was moved away, the new one has no name yet
        assert [name.split("-")[1] for name in before] == ["1.old", "1.tmp"]
    assert version == "follower@1"
    assert after == ["step-1"]


def prune_and_fence(root: Path) -> list[list[str]]:
    """Names left after each of three prunes, and what a fenced-out store does."""
    fence: list[Exception] = []

    def check_fence() -> None:
        if fence:
            raise fence[0]

    run = Run(Layout(), root)
    store = CheckpointStore(root, run.topology, check_fence=check_fence)
    for step in (1, 2, 9, 10):
        store.save(run.trainable, run.bank, root / f"step-{step}")
    (root / "samples.jsonl").write_text("")
    (root / "step-11").mkdir()  # no manifest: no checkpoint, and none of ours to remove
    names: list[list[str]] = []
    assert store.prune(root, keep=2, newest=root / "step-2") == []  # those after it were never recorded
    for keep, protect in ((4, []), (1, [root / "step-2"]), (1, [])):
        fence = [RuntimeError("overtaken")] if keep == 4 else []
        store.prune(root, keep=keep, protect=protect)
        names.append(sorted(entry.name for entry in root.iterdir()))
    fence = [RuntimeError("overtaken")]
    digest = store.verify(root / "step-10").digest
    run.train(0)
    with pytest.raises(RuntimeError, match="overtaken"):
        store.save(run.trainable, run.bank, root / "step-10")
    assert store.verify(root / "step-10").digest == digest
    with pytest.raises(ValueError, match="keep=0"):
        store.prune(root, keep=0)
    unfinished = root / ".step-12.tmp-1"  # of the attempt that has overtaken this one
    unfinished.mkdir()
    with pytest.raises(RuntimeError, match="overtaken"):
        CheckpointStore(root, run.topology, check_fence=check_fence)
    assert unfinished.is_dir()
    return names


def test_pruning_and_fencing(tmp_path: Path) -> None:
    (names,) = run_ranks(1, prune_and_fence, tmp_path)
    rest = ["samples.jsonl"]
    assert names == [
        [*rest, "step-1", "step-10", "step-11", "step-2", "step-9"],
        [*rest, "step-10", "step-11", "step-2"],
        [*rest, "step-10", "step-11"],
    ]


def generators_at_work(root: Path) -> bool:
    """Whether torch's generator is where it was after training, a save, swaps and a load."""
    run = Run(Layout(), root)
    before = torch.get_rng_state()
    run.train(0)
    run.store.save(run.trainable, run.bank, root / "step-1")
    with run.bank.resident("base"):
        pass
    run.store.load(run.trainable, run.bank, ROLE, root / "step-1")
    run.train(1)
    is_same = torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    assert not torch.equal(torch.get_rng_state(), before), "it would have been seen"
    shutdown(run.topology)
    return is_same


def test_nothing_draws_from_torchs_generators_so_none_need_be_saved(tmp_path: Path) -> None:
    assert run_ranks(1, generators_at_work, tmp_path) == [True]
