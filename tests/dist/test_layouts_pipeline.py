"""Pipelines with several chunks on each stage, and with stages of unlike depth, compute what one process computes."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from seif_nemo.models.architecture import read_architecture
from seif_nemo.models.builder import build_gpt
from seif_nemo.parallel.topology import build_topology, shutdown
from seif_nemo.types.rollouts import Rollout
from seif_nemo.weights.hf import export_hf, load_hf_weights
from tests.dist import test_checkpointing as checkpoints
from tests.dist.harness import run_ranks
from tests.dist.test_actor import check_layout
from tests.dist.test_generation import SAMPLINGS, make_requests, plain
from tests.dist.test_generation import build as build_engine
from tests.dist.tiny_gpt import TINY, Layout, local_weights, merge_weights
from tests.tiny_hf import make_tiny_hf

FOUR = replace(TINY, num_layers=4)
FIVE = replace(TINY, num_layers=5, tied_embeddings=False, qkv_bias=False, qk_norm=True, family="qwen3")
TRAINED = {
    "pp2 1+3": (Layout(2, pipeline=2, counts=(1, 3)), FOUR),
    "pp2 vpp2": (Layout(2, pipeline=2, virtual=2), FOUR),
    "pp2 vpp2 uneven": (Layout(2, pipeline=2, virtual=2, counts=(1, 2, 1, 1)), FIVE),
    "tp2 sp pp2 vpp2": (Layout(4, tensor=2, pipeline=2, sequence=True, virtual=2), FOUR),
    "pp2 vpp2 dp2": (Layout(4, pipeline=2, virtual=2), FOUR),
}


@pytest.mark.parametrize("name", TRAINED)
def test_train_steps_are_those_of_one_process(name: str) -> None:
    check_layout(*TRAINED[name])


PIPELINES = {
    2: [Layout(2, pipeline=2, virtual=2, counts=(1, 2, 1, 1)), Layout(2, pipeline=2, counts=(1, 4))],
    4: [Layout(4, tensor=2, pipeline=2, sequence=True, virtual=2, counts=(1, 1, 1, 2))],
}


def generate(layouts: Sequence[Layout]) -> list[list[Rollout]]:
    answers: list[list[Rollout]] = []
    for layout in layouts:
        topology, _, engine, _ = build_engine(layout, FIVE, 6)
        answers.append(engine.generate(make_requests(), SAMPLINGS["sampled"], weight_version="w"))
        shutdown(topology)
    return answers


def test_tokens_are_those_of_one_process() -> None:
    ((expected,),) = run_ranks(1, generate, [Layout(1)])
    assert len({len(rollout.response_ids) for rollout in expected}) > 5
    for world, layouts in PIPELINES.items():
        for answers in run_ranks(world, generate, layouts):
            for layout, rollouts in zip(layouts, answers, strict=True):
                assert plain(rollouts) == plain(expected), layout
                for a, b in zip(rollouts, expected, strict=True):
                    np.testing.assert_allclose(a.logprobs, b.logprobs, atol=3e-5)


def load_and_export(layouts: Sequence[Layout], paths: Sequence[Path]) -> list[tuple[int, dict[str, np.ndarray]]]:
    """(Tensor rank, loaded weights) of each model in each layout; the exports go into the models' directories."""
    loaded: list[tuple[int, dict[str, np.ndarray]]] = []
    for number, layout in enumerate(layouts):
        topology = build_topology(layout.config, seed=1, threads=1)
        for path in paths:
            arch = read_architecture(path)
            modules = build_gpt(arch, topology, dtype=torch.float32, max_sequence_length=16)
            load_hf_weights(modules, arch, topology, path)
            loaded.append((topology.tensor_rank, local_weights(modules)))
            export_hf(modules, arch, topology, path / f"{layout.world}-{number}", source_dir=path)
        shutdown(topology)
    return loaded


def test_hugging_face_weights_come_in_and_go_out(tmp_path: Path) -> None:
    paths = [
        make_tiny_hf(tmp_path / f"tied {tied}", "qwen2", num_hidden_layers=5, tie_word_embeddings=tied)
        for tied in (True, False)
    ]
    (whole,) = run_ranks(1, load_and_export, [Layout(1)], paths)
    for world, layouts in PIPELINES.items():
        results = run_ranks(world, load_and_export, layouts, paths)
        for number, (layout, path) in enumerate(itertools.product(layouts, paths)):
            merged = merge_weights([result[number] for result in results], layout.tensor)
            expected = merge_weights([whole[paths.index(path)]], 1)
            assert merged.keys() == expected.keys()
            assert all(np.array_equal(merged[name], value) for name, value in expected.items()), layout
            source = load_file(path / "model.safetensors")
            exported = load_file(path / f"{world}-{number // 2}" / "model.safetensors")
            assert exported.keys() == source.keys()
            assert all(torch.equal(exported[name], value) for name, value in source.items()), layout


VIRTUAL = checkpoints.Layout(pipeline=2, virtual=2, arch=FOUR)
OTHERS = {1: checkpoints.Layout(arch=FOUR), 2: checkpoints.Layout(tensor=2, arch=FOUR)}


def load_elsewhere(layout: checkpoints.Layout, root: Path) -> tuple[checkpoints.State, checkpoints.State]:
    """States after the load of a checkpoint of another layout and after one more step."""
    run = checkpoints.Run(layout, root)
    run.train(7)
    run.store.load(run.trainable, run.bank, checkpoints.ROLE, root / "virtual")
    loaded = run.state()
    run.train(2)
    end = run.state()
    shutdown(run.topology)
    return loaded, end


def test_a_checkpoint_of_chunks_continues_here_and_in_other_layouts(tmp_path: Path) -> None:
    saved = run_ranks(2, checkpoints.train_and_save, VIRTUAL, tmp_path, "virtual")
    again = run_ranks(2, checkpoints.load_and_continue, VIRTUAL, tmp_path, "virtual", saved[0][2])
    for (at_save, at_end, _), states in zip(saved, again, strict=True):
        assert [state.bits for state in states] == [at_save.bits, at_end.bits]
    before, after = (checkpoints.merged([rank[i] for rank in saved], 1) for i in range(2))
    for world, layout in OTHERS.items():
        results = run_ranks(world, load_elsewhere, layout, tmp_path)
        loaded, end = (checkpoints.merged([rank[i] for rank in results], layout.tensor) for i in range(2))
        assert (results[0][0].step_count, results[0][0].learning_rate) == (4, 1e-3)
        for name, value in before.items():
            assert np.array_equal(loaded[name], value), name
            change = after[name] - value
            assert np.abs(change).max() > 1e-4
            np.testing.assert_allclose(end[name] - value, change, rtol=1e-3, atol=2e-6)
