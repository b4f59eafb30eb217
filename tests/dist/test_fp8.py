"""Emulated FP8 in whole models: layouts, the layers it leaves alone, generation, and the state of delayed scaling."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from seif_nemo.checkpointing.state import load_state
from seif_nemo.checkpointing.store import CheckpointStore
from seif_nemo.components.actor import Actor
from seif_nemo.config.algorithm import AlgorithmConfig, OptimizerConfig
from seif_nemo.config.fp8 import Fp8Config, Fp8Recipe
from seif_nemo.config.generation import GenerationConfig
from seif_nemo.config.model import Dtype, ModelConfig, Precision
from seif_nemo.config.parallel import ParallelConfig, Recompute
from seif_nemo.config.root import Config
from seif_nemo.evolution.build_engine import build_engine
from seif_nemo.generation.megatron import forward as forward_module
from seif_nemo.generation.megatron.engine import MegatronEngine
from seif_nemo.models.architecture import Architecture, read_architecture
from seif_nemo.models.builder import build_gpt
from seif_nemo.models.precision import plan_fp8
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.topology import Topology, build_topology, shutdown
from seif_nemo.types.rollouts import SamplingParams
from seif_nemo.weights.bank import RoleBank
from seif_nemo.weights.hf import load_hf_weights
from seif_nemo.weights.role_digest import RoleSums
from tests.dist.harness import RankError, run_ranks
from tests.dist.test_checkpointing import NoEngine, samples
from tests.dist.test_generation import Letters, make_requests
from tests.dist.tiny_gpt import TINY, Layout, build_tiny
from tests.tiny_hf import make_tiny_hf

WIDE = replace(TINY, hidden_size=64, ffn_hidden_size=160, head_dim=16)  # blocks of 32 divide what TP2 makes of it
HISTORY = 4
ONE = Layout(1)
TP2, TP2_SP, PP2 = Layout(2, tensor=2), Layout(2, tensor=2, sequence=True), Layout(2, pipeline=2)
DP2 = Layout(2)


@dataclass(frozen=True, slots=True)
class Run:
    recipe: Fp8Recipe | None
    layout: Layout = ONE
    first_last: int = 0
    recompute: Recompute = Recompute.none
    precision: Precision = Precision.fp8_emulated

    @property
    def fp8(self) -> Fp8Config:
        assert self.recipe is not None
        length = {"amax_history_length": HISTORY} if self.recipe is Fp8Recipe.delayed else {}
        return Fp8Config(recipe=self.recipe, first_last_bf16=self.first_last, **length)


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    before: NDArray[np.float32]  # log-probs
    norms: list[float]  # of the gradients of the first updates
    after: NDArray[np.float32]
    scales: NDArray[np.float32]  # of the first stage; empty without delayed scaling


class World:
    def __init__(self, run: Run) -> None:
        self.topology: Topology = build_topology(run.layout.config, seed=0, threads=1, rendezvous_timeout_s=60)
        plan = None if run.recipe is None else plan_fp8(run.precision, run.fp8)
        modules = build_tiny(self.topology, WIDE, recompute=run.recompute, fp8=plan)
        optimizer = OptimizerConfig(learning_rate=1e-3, epsilon=1e-3)
        self.trainable = TrainableModel(modules, modules[0].config, optimizer, self.topology)
        self.trainable.after_weights_changed()
        self.engine = MegatronEngine(
            modules, self.topology, Letters(), max_batch_rows=8, max_sequence_length=40, weight_version=lambda: "w"
        )
        self.actor = Actor(
            self.trainable,
            self.engine,
            Letters(),
            self.topology,
            AlgorithmConfig(),
            WIDE,
            micro_batch_tokens=40,
            max_new_tokens=16,
            temperature=1.0,
        )

    def logprobs(self) -> NDArray[np.float32]:
        pairs = [(sample.prompt_ids, sample.response_ids) for sample in samples(5)]
        return np.concatenate(self.actor.logprobs(pairs))

    def train(self, step: int) -> float:
        return self.actor.train_step(samples(step), kl_coefficient=0.05, mini_batches=2, seed=step).grad_norm

    def scales(self) -> NDArray[np.float32]:
        buffers = self.trainable.fp8_buffers()
        return torch.cat([buffer[-1] for buffer in buffers]).numpy().copy() if buffers else np.zeros(0, np.float32)


def trace_runs(runs: Sequence[Run]) -> list[Trace]:
    traces: list[Trace] = []
    for run in runs:
        world = World(run)
        before = world.logprobs()
        norms = [world.train(step) for step in range(2)]
        traces.append(Trace(before, norms, world.logprobs(), world.scales()))
        shutdown(world.topology)
    return traces


STATELESS = (Fp8Recipe.tensorwise, Fp8Recipe.blockwise, Fp8Recipe.mxfp8)


def differ(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.abs(a - b).mean())


def test_layouts_round_alike_where_scales_are_powers_of_two_and_else_by_no_more_than_fp8_does() -> None:
    """A power of two changes only what underflows, so it does not matter into which blocks a layout divides a tensor.

    The scale of a whole tensor moves all of its numbers: with tensor parallelism each shard of a weight has its own, as
    in Transformer Engine, and results differ by about as much as FP8 differs from fp32.
    """
    runs = [Run(None), *map(Run, STATELESS)]
    again = [Run(recipe, recompute=Recompute.full) for recipe in STATELESS]
    (one,) = run_ranks(1, trace_runs, runs + again)
    for trace, recomputed in zip(one[1 : len(runs)], one[len(runs) :], strict=True):
        assert np.array_equal(trace.after, recomputed.after) and trace.norms == recomputed.norms
    layouts = (TP2, TP2_SP, PP2)
    per_rank = run_ranks(2, trace_runs, [replace(run, layout=layout) for layout in layouts for run in runs[1:]])
    found = dict(zip([(layout, run.recipe) for layout in layouts for run in runs[1:]], per_rank[0], strict=True))
    plain, single = one[0], dict(zip(STATELESS, one[1 : len(runs)], strict=True))
    for recipe in STATELESS:
        assert 0.05 < differ(single[recipe].before, plain.before) < 1, "FP8 must be felt in this model of wide logits"
    for (layout, recipe), trace in found.items():
        expected, label = single[recipe], f"{recipe} at {layout}"
        if recipe is not Fp8Recipe.tensorwise or layout == PP2:
            np.testing.assert_allclose(trace.before, expected.before, atol=2e-5, err_msg=label)
            np.testing.assert_allclose(trace.norms, expected.norms, rtol=1e-5, err_msg=label)
            np.testing.assert_allclose(trace.after, expected.after, atol=1e-4, err_msg=label)
        else:
            error = differ(expected.before, plain.before)
            assert 0.1 * error < differ(trace.before, expected.before) < 1.5 * error, label
    with_sp, without = (found[layout, Fp8Recipe.tensorwise].before for layout in (TP2_SP, TP2))
    np.testing.assert_allclose(with_sp, without, atol=2e-5, err_msg="the whole sequence has one scale")


def save(trainable: TrainableModel, arch: Architecture, path: Path, *, with_optimizer: bool) -> None:
    bank = RoleBank(trainable, RoleSums(trainable.modules, arch, trainable.topology))
    bank.add("follower", trained=True)
    CheckpointStore(path.parent, trainable.topology).save(trainable, bank, path, with_optimizer=with_optimizer)


def take_turns() -> list[NDArray[np.float32]]:
    """Scales of delayed scaling: of both roles at first, of the first after it learned, of the second, of the first."""
    world = World(Run(Fp8Recipe.delayed))
    bank = RoleBank(world.trainable, RoleSums(world.trainable.modules, WIDE, world.topology))
    for role in ("instructor", "follower"):
        bank.add(role, trained=True)
    seen = [world.scales()]
    world.train(0)
    bank.mark_updated()
    seen.append(world.scales())
    for role in ("instructor", "follower"):
        bank.switch(role)
        seen.append(world.scales())
    shutdown(world.topology)
    return seen


def test_each_role_has_scales_of_its_own() -> None:
    for first, learned, other, back in run_ranks(2, take_turns):
        assert np.array_equal(first, other) and np.array_equal(learned, back)
        assert not np.array_equal(first, learned)


def save_and_go_on(root: Path) -> tuple[Trace, Trace]:
    """A delayed run that is saved after two steps, and its third step; a run in fp32 is saved beside it."""
    for recipe, name in ((None, "plain"), (Fp8Recipe.delayed, "delayed")):
        world = World(Run(recipe))
        norms = [world.train(step) for step in range(2)]
        save(world.trainable, WIDE, root / name, with_optimizer=True)
        at_save = Trace(world.logprobs(), norms, world.logprobs(), world.scales())
        steps = world.trainable.step_count
        shutdown(world.topology)
    world = World(Run(Fp8Recipe.delayed))
    load(world, root / "delayed", steps)
    norms = [world.train(2)]
    end = Trace(at_save.before, norms, world.logprobs(), world.scales())
    shutdown(world.topology)
    return at_save, end


def load(world: World, path: Path, steps: int = 4) -> None:
    world.train(9)  # what was there before must not matter
    load_state(world.trainable, path, with_optimizer=True)
    world.trainable.step_count = steps


def load_layouts(root: Path, layouts: Sequence[Layout]) -> list[tuple[Trace, NDArray[np.float32]]]:
    """What each layout loads and computes, and its scales after one more step."""
    traces: list[tuple[Trace, NDArray[np.float32]]] = []
    for layout in layouts:
        world = World(Run(Fp8Recipe.delayed, layout))
        load(world, root / "delayed")
        before, scales = world.logprobs(), world.scales()
        trace = Trace(before, [world.train(2)], world.logprobs(), scales)
        traces.append((trace, world.scales()))
        shutdown(world.topology)
    return traces


def go_on_without_a_break(root: Path) -> tuple[Trace, list[str], bool]:
    """The three steps in one go. Then what loading the other precision's checkpoint says and leaves."""
    world = World(Run(Fp8Recipe.delayed))
    norms = [world.train(step) for step in range(3)]
    trace = Trace(world.logprobs(), norms, world.logprobs(), world.scales())
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("seif_nemo.checkpointing.state").addHandler(handler)
    load_state(world.trainable, root / "plain", with_optimizer=True)
    forgotten = not any(buffer.any() for buffer in world.trainable.fp8_buffers())
    shutdown(world.topology)
    world = World(Run(None))
    assert world.trainable.fp8_buffers() == []
    load_state(world.trainable, root / "delayed", with_optimizer=True)
    shutdown(world.topology)
    return trace, messages, forgotten


def test_delayed_scales_are_saved_and_every_layout_goes_on_with_them(tmp_path: Path) -> None:
    ((at_save, end),) = run_ranks(1, save_and_go_on, tmp_path)
    ((straight, messages, forgotten),) = run_ranks(1, go_on_without_a_break, tmp_path)
    assert (at_save.scales > 0).all() and not np.array_equal(at_save.scales, end.scales)
    assert np.array_equal(end.after, straight.after) and end.norms[0] == straight.norms[2]
    assert np.array_equal(end.scales, straight.scales)
    assert messages == [f"{tmp_path / 'plain'} was saved without the scales of fp8.recipe=delayed: they start anew"]
    assert forgotten
    layouts = (TP2, TP2_SP, PP2, DP2)
    first, second = run_ranks(2, load_layouts, tmp_path, layouts)
    for layout, (trace, scales), (_, of_second) in zip(layouts, first, second, strict=True):
        np.testing.assert_array_equal(trace.scales, at_save.scales[: len(trace.scales)], err_msg=str(layout))
        np.testing.assert_allclose(trace.before, at_save.before, atol=2e-5, err_msg=str(layout))
        if layout != PP2:
            np.testing.assert_array_equal(scales, of_second, err_msg=f"{layout}: one scale for all parts of a tensor")
        if layout != DP2:  # whose passes see other micro-batches
            np.testing.assert_allclose(scales, end.scales[: len(scales)], rtol=0.02, err_msg=str(layout))
            assert trace.norms[0] == pytest.approx(end.norms[0], rel=0.02), layout


def mismatches(recipes: Sequence[Fp8Recipe | None]) -> list[tuple[float, float]]:
    """(largest difference, mean exp|difference|) between the engine's log-probs and those of the training forward."""
    found: list[tuple[float, float]] = []
    for recipe in recipes:
        world = World(Run(recipe))
        if recipe is Fp8Recipe.delayed:
            world.train(0)
        scales = world.scales()
        requests = make_requests()
        rollouts = world.actor.generate(requests, SamplingParams(max_new_tokens=16), weight_version="w")
        scored = world.actor.logprobs([(rollout.prompt_ids, rollout.response_ids) for rollout in rollouts])
        delta = np.concatenate(scored) - np.concatenate([rollout.logprobs for rollout in rollouts])
        assert np.array_equal(world.scales(), scales), "neither generation nor scoring moves the scales"
        found.append((float(np.abs(delta).max()), float(np.exp(np.abs(delta)).mean())))
        shutdown(world.topology)
    return found


def test_generation_gives_the_training_forwards_log_probs_unless_scales_depend_on_the_batch() -> None:
    recipes = (None, Fp8Recipe.blockwise, Fp8Recipe.mxfp8, Fp8Recipe.delayed, Fp8Recipe.tensorwise)
    (found,) = run_ranks(1, mismatches, recipes)
    for recipe, (largest, _) in zip(recipes[:-1], found, strict=False):
        assert largest < 1e-4, recipe
    assert 1.001 < found[-1][1] < 2, "each batch has its own scale"


def mismatch_of_another_layout(recipe: Fp8Recipe) -> float:
    """Largest difference where two data-parallel ranks train and generate together."""
    run = Run(recipe, DP2)
    world = World(run)
    bank = RoleBank(world.trainable, RoleSums(world.trainable.modules, WIDE, world.topology))
    bank.add("follower", trained=False)
    config = Config(
        model=ModelConfig(path="m", dtype=Dtype.float32, precision=run.precision, max_sequence_length=40),
        fp8=run.fp8,
        generation=GenerationConfig(tensor=2),
    )
    engine = build_engine(config, world.trainable, bank, Letters(), WIDE, world.topology, None)
    rollouts = engine.generate(make_requests(), SamplingParams(max_new_tokens=16), weight_version=bank.version)
    scored = world.actor.logprobs([(rollout.prompt_ids, rollout.response_ids) for rollout in rollouts])
    delta = np.concatenate(scored) - np.concatenate([rollout.logprobs for rollout in rollouts])
    shutdown(world.topology)
    return float(np.abs(delta).max())


def test_a_generation_layout_of_its_own_computes_in_fp8_too() -> None:
    assert run_ranks(2, mismatch_of_another_layout, Fp8Recipe.mxfp8)[0] < 1e-4


def modules_in_fp8(runs: Sequence[Run]) -> list[list[str]]:
    found: list[list[str]] = []
    for run in runs:
        world = World(run)
        names: list[str] = []
        for module in world.trainable.modules:
            for name, part in module.named_modules():
                fp8: Any = getattr(part, "fp8", None)
                if fp8 is not None:
                    layer: Any = module.decoder.layers[int(name.split(".")[2])]
                    names.append(f"{layer.layer_number}.{name.split('.', 3)[3]}")
        found.append(names)
        shutdown(world.topology)
    return found


LINEARS = ["self_attention.linear_proj", "self_attention.linear_qkv", "mlp.linear_fc1", "mlp.linear_fc2"]


def test_fp8_is_in_the_linear_layers_of_the_blocks_alone_and_not_in_those_at_the_ends() -> None:
    runs = [Run(Fp8Recipe.mxfp8), Run(Fp8Recipe.mxfp8, first_last=1), Run(None)]
    ((whole, middle, none),) = run_ranks(1, modules_in_fp8, runs)
    assert whole == [f"{layer}.{name}" for layer in (1, 2, 3) for name in LINEARS]
    assert middle == [f"2.{name}" for name in LINEARS] and none == []
    stages = run_ranks(2, modules_in_fp8, [replace(runs[1], layout=PP2)])
    assert [names for (names,) in stages] == [middle, []]

    with pytest.raises(RankError, match=r"fp8\.first_last_bf16=2 leaves no FP8 layer.*choose 1"):
        run_ranks(1, modules_in_fp8, [Run(Fp8Recipe.mxfp8, first_last=2)])


def train_experts(
    path: Path, layouts: Sequence[ParallelConfig], recipes: Sequence[Fp8Recipe | None], root: Path
) -> list[Trace]:
    """Of a model with experts, whose delayed scales go through a checkpoint below `root`."""
    arch = read_architecture(path)
    traces: list[Trace] = []
    for config in layouts:
        for recipe in recipes:
            topology = build_topology(config, seed=0, threads=1, rendezvous_timeout_s=60)
            plan = None if recipe is None else plan_fp8(Precision.fp8_emulated, Run(recipe).fp8)
            modules = build_gpt(arch, topology, dtype=torch.float32, max_sequence_length=64, fp8=plan)
            trainable = TrainableModel(modules, modules[0].config, OptimizerConfig(epsilon=1e-3), topology)
            load_hf_weights(trainable.modules, arch, topology, path)
            trainable.after_weights_changed()
            actor = Actor(
                trainable,
                NoEngine(),  # pyright: ignore[reportArgumentType]
                Letters(),
                topology,
                AlgorithmConfig(),
                arch,
                micro_batch_tokens=40,
                max_new_tokens=16,
                temperature=1.0,
            )
            pairs = [(sample.prompt_ids, sample.response_ids) for sample in samples(5)]
            before = np.concatenate(actor.logprobs(pairs))
            norm = actor.train_step(samples(0), kl_coefficient=0.0, mini_batches=1, seed=0).grad_norm
            buffers = trainable.fp8_buffers()
            scales = torch.cat([b[-1] for b in buffers]).numpy().copy() if buffers else np.zeros(0, np.float32)
            if recipe is Fp8Recipe.delayed:
                folder = root / f"{config.tensor}-{config.expert}"
                save(trainable, arch, folder, with_optimizer=False)
                for buffer in buffers:
                    buffer.zero_()
                load_state(trainable, folder, with_optimizer=False)
                assert np.array_equal(torch.cat([b[-1] for b in buffers]).numpy(), scales)
            traces.append(Trace(before, [norm], np.concatenate(actor.logprobs(pairs)), scales))
            shutdown(topology)
    return traces


def test_experts_compute_in_fp8_and_their_router_does_not(tmp_path: Path) -> None:
    path = make_tiny_hf(tmp_path / "model", "qwen3_moe")
    recipes = (None, Fp8Recipe.blockwise, Fp8Recipe.delayed)
    (one,) = run_ranks(1, train_experts, path, [ParallelConfig()], recipes, tmp_path)
    for recipe, trace in zip(recipes[1:], one[1:], strict=True):
        assert 1e-4 < differ(trace.before, one[0].before) < 1, recipe
    layouts = [ParallelConfig(expert=2), ParallelConfig(tensor=2, sequence=True, expert=2, expert_tensor=1)]
    found = run_ranks(2, train_experts, path, layouts, recipes, tmp_path)[0]
    for layout, (plain, blockwise, delayed) in zip(layouts, zip(*[iter(found)] * 3, strict=True), strict=True):
        for trace, expected in ((plain, one[0]), (blockwise, one[1])):
            np.testing.assert_allclose(trace.before, expected.before, atol=2e-5, err_msg=str(layout))
            np.testing.assert_allclose(trace.norms, expected.norms, rtol=1e-4, err_msg=str(layout))
            np.testing.assert_allclose(trace.after, expected.after, atol=1e-4, err_msg=str(layout))
        assert (delayed.scales.reshape(-1, 3)[:, 1] > 0).all(), "every weight was seen"


@dataclass(frozen=True, slots=True, eq=False)
class Padded:
    tokens: list[list[int]]  # of each rollout
    logprobs: NDArray[np.float32]
    rows: set[int]  # that the linear layers of this rank's blocks worked on


def padded_runs(layouts: Sequence[Layout], fp8: str | None) -> list[Padded]:
    """Generation and scoring with a configuration that asks for FP8: without Transformer Engine it only pads."""
    forward_module.assert_pass_in_fp8 = lambda model: None
    found: list[Padded] = []
    for layout in layouts:
        world = World(Run(None, layout))
        rows: set[int] = set()

        def note(_module: Any, inputs: tuple[Any, ...], rows: set[int] = rows) -> None:
            rows.add(inputs[0].shape[0] * inputs[0].shape[1])

        for module in world.trainable.modules:
            module.config.fp8, module.config.fp8_recipe = fp8, "mxfp8"
            for layer in module.decoder.layers:
                layer.get_submodule("mlp.linear_fc1").register_forward_pre_hook(note)
        world.engine = MegatronEngine(
            world.trainable.modules,
            world.topology,
            Letters(),
            max_batch_rows=8,
            max_sequence_length=40,
            weight_version=lambda: "w",
        )
        linear: Any = world.trainable.modules[0].decoder.layers[0].get_submodule("mlp.linear_fc1")
        linear.is_first_microbatch = False  # as Transformer Engine's, once it has made FP8 weights
        world.engine.invalidate_caches()
        assert linear.is_first_microbatch == (fp8 is not None)
        rollouts = world.engine.generate(make_requests(), SamplingParams(max_new_tokens=8), weight_version="w")
        found.append(Padded([rollout.response_ids.tolist() for rollout in rollouts], world.logprobs(), rows))
        shutdown(world.topology)
    return found


def test_fp8_in_hardware_gets_whole_multiples_of_tokens_and_padding_changes_nothing() -> None:
    layouts = (TP2_SP, PP2)
    plain, padded = (run_ranks(2, padded_runs, layouts, fp8)[0] for fp8 in (None, "hybrid"))
    for layout, expected, trace in zip(layouts, plain, padded, strict=True):
        assert any(count % 32 for count in expected.rows) and not any(count % 32 for count in trace.rows), layout
        assert trace.tokens == expected.tokens, layout
        np.testing.assert_allclose(trace.logprobs, expected.logprobs, atol=1e-5)


def passes_without_engine(what: str) -> None:
    """A model for Transformer Engine, built where there is none: Megatron-core itself has nothing against that."""
    world = World(Run(Fp8Recipe.blockwise, precision=Precision.fp8_hybrid))
    if what == "score":
        world.logprobs()
    else:
        world.engine.generate(make_requests(), SamplingParams(max_new_tokens=2), weight_version="w")


@pytest.mark.parametrize("what", ["score", "generate"])
def test_a_pass_that_was_not_in_fp8_stops_the_run(what: str) -> None:
    with pytest.raises(
        RankError, match="FP8 was asked for, but no linear layer of this pipeline stage can compute in it"
    ):
        run_ranks(1, passes_without_engine, what)
