"""Critic and policy take turns in one model: neither moves the other, and both continue from their checkpoints."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from seif_nemo.checkpointing.store import CheckpointStore
from seif_nemo.components.actor import Actor
from seif_nemo.components.critic import Critic
from seif_nemo.config.algorithm import AlgorithmConfig, OptimizerConfig
from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.models.architecture import read_architecture
from seif_nemo.models.builder import build_gpt
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.models.value_head import is_of_value_head
from seif_nemo.parallel.topology import build_topology, shutdown
from seif_nemo.types.training import TrainSample, ValueSample
from seif_nemo.weights.bank import RoleBank
from seif_nemo.weights.hf import export_hf, load_hf_weights
from seif_nemo.weights.role_digest import RoleSums
from tests.dist.harness import run_ranks
from tests.tiny_hf import make_tiny_hf

POLICY = OptimizerConfig(learning_rate=1e-3, weight_decay=0.1, epsilon=1e-5)  # as in test_actor.py
VALUES = OptimizerConfig(learning_rate=3e-3, beta2=0.9, weight_decay=0.2)


@dataclass(frozen=True, slots=True)
class Layout:
    tensor: int = 1
    pipeline: int = 1


LAYOUTS = {"tp2": Layout(tensor=2), "pp2": Layout(pipeline=2)}


class NoEngine:
    def invalidate_caches(self) -> None: ...


class OnlyPad:
    pad_id = 2


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Of one resident on one rank."""

    bits: bytes  # of weights and moments
    step_count: int
    head: np.ndarray | None  # on the last stage
    body: dict[str, np.ndarray]


class Turns:
    """A world whose bank has a follower and its critic, both of the same base."""

    def __init__(self, layout: Layout, source: Path, root: Path, *, with_critic: bool = True) -> None:
        self.topology = build_topology(
            ParallelConfig(tensor=layout.tensor, pipeline=layout.pipeline), seed=0, threads=1, rendezvous_timeout_s=60
        )
        self.architecture = read_architecture(source)
        modules = build_gpt(
            self.architecture,
            self.topology,
            dtype=torch.float32,
            max_sequence_length=64,
            with_value_head=with_critic,
        )
        with torch.no_grad():
            for parameter in modules[-1].parameters():
                parameter.fill_(7.0)  # also the head, which the load is to bring back to zero
        self.trainable = TrainableModel(modules, modules[0].config, POLICY, self.topology)
        load_hf_weights(self.trainable.modules, self.architecture, self.topology, source)
        self.bank = RoleBank(self.trainable, RoleSums(self.trainable.modules, self.architecture, self.topology))
        self.bank.add("base", trained=False)
        self.bank.add("follower", trained=True)
        if with_critic:
            self.bank.add("critic", trained=True)
        self.actor = Actor(
            self.trainable,
            NoEngine(),  # pyright: ignore[reportArgumentType]
            OnlyPad(),  # pyright: ignore[reportArgumentType]
            self.topology,
            AlgorithmConfig(),
            self.architecture,
            micro_batch_tokens=40,
            max_new_tokens=16,
        )
        self.critic = Critic(
            self.trainable,
            self.topology,
            self.architecture,
            pad_id=2,
            micro_batch_tokens=40,
            value_clip=0.2,
            max_skipped_updates=1,
        )
        self.store = CheckpointStore(root, self.topology)

    def turn(self, step: int, *, with_critic: bool = True) -> None:
        policy, values = samples(step)
        self.bank.switch("follower")
        if with_critic:
            with self.bank.resident("critic"):
                self.trainable.configure(VALUES)
                self.critic.train_step(values, mini_batches=2, epochs=1, seed=step)
                self.bank.mark_updated()
        self.trainable.configure(POLICY)
        self.actor.train_step(policy, kl_coefficient=0.05, mini_batches=2, seed=step)
        self.bank.mark_updated()

    def state(self, name: str) -> State:
        with self.bank.resident(name):
            buffers = [*self.trainable.weight_buffers(), *self.trainable.moment_buffers()]
            weights = {
                key: value.detach().numpy().copy() for key, value in self.trainable.modules[-1].named_parameters()
            }
            head = [weights.pop(key) for key in list(weights) if is_of_value_head(key)]
            return State(
                b"".join(buffer.numpy().tobytes() for buffer in buffers),
                self.trainable.step_count,
                np.concatenate(head) if head else None,
                weights,
            )


def samples(step: int) -> tuple[list[TrainSample], list[ValueSample]]:
    rng = np.random.default_rng(step)
    policy: list[TrainSample] = []
    values: list[ValueSample] = []
    for group in range(6):
        prompt, response = (rng.integers(0, 90, int(rng.integers(1, 9))) for _ in range(2))
        arrays = [rng.normal(-4.5, 0.1, len(response)).astype(np.float32) for _ in range(4)]
        policy.append(TrainSample(prompt, response, arrays[0], arrays[1], arrays[2] + 4.5, group))
        values.append(ValueSample(prompt, response, arrays[2] + 4.5, arrays[3] + 4.5, group))
    return policy, values


def train_and_save(source: Path, root: Path) -> dict[str, tuple[list[State], list[str]]]:
    """Per layout: base, follower and critic after two turns (saved then) and the last two after three; digests."""
    results: dict[str, tuple[list[State], list[str]]] = {}
    for name, layout in LAYOUTS.items():
        run = Turns(layout, source, root)
        for step in range(2):
            run.turn(step)
        with run.bank.resident("critic"):
            run.store.save(run.trainable, run.bank, root / name / "critic")
            export_hf(run.trainable.modules, run.architecture, run.topology, root / f"{name}-hf", source_dir=source)
        run.store.save(run.trainable, run.bank, root / name / "follower")
        states = [run.state(resident) for resident in ("base", "follower", "critic")]
        digests = [run.bank.digest(resident) for resident in ("follower", "critic")]
        run.turn(2)
        states += [run.state(resident) for resident in ("follower", "critic")]
        results[name] = (states, digests)
        shutdown(run.topology)
    return results


def load_and_go_on(source: Path, root: Path, digests: dict[str, list[str]]) -> dict[str, list[State]]:
    """Follower and critic after the same third turn in a new process; and a follower that never had a critic."""
    results: dict[str, list[State]] = {}
    for name, layout in LAYOUTS.items():
        run = Turns(layout, source, root)
        for resident, digest in zip(("follower", "critic"), digests[name], strict=True):
            run.store.load(run.trainable, run.bank, resident, root / name / resident, expect_digest=digest)
        run.turn(2)
        results[name] = [run.state(resident) for resident in ("follower", "critic")]
        shutdown(run.topology)
    run = Turns(LAYOUTS["tp2"], source, root, with_critic=False)
    for step in range(3):
        run.turn(step, with_critic=False)
    results["without"] = [run.state("follower")]
    shutdown(run.topology)
    return results


def load_alone(source: Path, root: Path) -> dict[str, State]:
    """The critics of all layouts on one rank."""
    run = Turns(Layout(), source, root)
    results: dict[str, State] = {}
    for name in LAYOUTS:
        run.bank.switch("base")
        run.bank.add(name, trained=True)
        run.store.load(run.trainable, run.bank, name, root / name / "critic")
        results[name] = run.state(name)
    shutdown(run.topology)
    return results


def test_critic_and_policy_take_turns_and_continue_to_the_bit(tmp_path: Path) -> None:
    source = make_tiny_hf(tmp_path / "source", "qwen2", tie_word_embeddings=True)
    saved = run_ranks(2, train_and_save, source, tmp_path)
    digests = {name: saved[0][name][1] for name in LAYOUTS}
    resumed = run_ranks(2, load_and_go_on, source, tmp_path, digests)
    (alone,) = run_ranks(1, load_alone, source, tmp_path)
    for rank in range(2):
        for name, layout in LAYOUTS.items():
            base, follower, critic, follower_end, critic_end = saved[rank][name][0]
            assert digests[name] == saved[rank][name][1]
            assert (follower.step_count, critic.step_count, critic_end.step_count) == (4, 4, 6)
            for before, after in ((base, follower), (base, critic), (follower, critic), (critic, critic_end)):
                assert before.bits != after.bits, name
            for expected, actual in zip((follower_end, critic_end), resumed[rank][name], strict=True):
                assert actual.bits == expected.bits, name
                assert actual.step_count == expected.step_count
            assert (critic.head is None) == (layout.pipeline == 2 and rank == 0)
            if critic.head is not None:
                assert base.head is not None and follower_end.head is not None
                assert not base.head.any() and not follower_end.head.any()
                assert np.array_equal(alone[name].head, critic.head)
                assert np.abs(critic.head).max() > 1e-3
        without = resumed[rank]["without"][0].body
        for key, value in saved[rank]["tp2"][0][3].body.items():
            np.testing.assert_allclose(value, without[key], rtol=1e-5, atol=1e-6, err_msg=key)
    with (
        safe_open(source / "model.safetensors", "pt") as a,
        safe_open(tmp_path / "pp2-hf/model.safetensors", "pt") as b,
    ):
        assert sorted(a.keys()) == sorted(b.keys())  # the head stays here
