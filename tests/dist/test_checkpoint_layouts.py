"""A state that is saved and loaded from layout to layout stays what it was: every tensor of the file, to the bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_files

from seif_nemo.parallel.topology import shutdown
from tests.dist import test_checkpointing as dense
from tests.dist import test_expert_state as moe
from tests.dist.harness import run_ranks
from tests.dist.tiny_gpt import TINY
from tests.tiny_hf import make_tiny_hf

BF16 = torch.bfloat16
FOUR_LAYERS = replace(TINY, num_layers=4)
DENSE = [
    ("tp2 dp2", 4, dense.Layout(tensor=2, dtype=BF16, arch=FOUR_LAYERS)),
    ("pp2 vpp2", 2, dense.Layout(pipeline=2, virtual=2, dtype=BF16, arch=FOUR_LAYERS)),
    ("dp2 offloaded", 2, dense.Layout(dtype=BF16, offload=True, arch=FOUR_LAYERS)),
    ("cp2", 2, dense.Layout(context=2, dtype=BF16, arch=FOUR_LAYERS)),
    ("one", 1, dense.Layout(dtype=BF16, arch=FOUR_LAYERS)),
]


def pass_on(layout: dense.Layout, root: Path, source: str | None, target: str) -> None:
    """Load the checkpoint `source`, or train, and save."""
    run = dense.Run(layout, root)
    run.train(0)
    if source is not None:
        run.bank.switch("base")
        run.bank.add("loaded", trained=True)
        run.store.load(run.trainable, run.bank, "loaded", root / source)
    run.store.save(run.trainable, run.bank, root / target)
    shutdown(run.topology)


def pass_experts_on(layout: moe.Layout, model: Path, root: Path, source: str | None, target: str) -> None:
    run = moe.Run(layout, model, root, BF16)
    run.train(0)
    if source is not None:
        run.bank.switch("base")
        run.bank.add("loaded", trained=True)
        run.store.load(run.trainable, run.bank, "loaded", root / source)
    run.store.save(run.trainable, run.bank, root / target)
    shutdown(run.topology)


def tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint, whole, read by torch's own reader without a world."""
    reader = FileSystemReader(path)
    found = {
        key: torch.empty(entry.size, dtype=entry.properties.dtype)
        for key, entry in reader.read_metadata().state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    load_files(found, storage_reader=reader, no_dist=True)
    return {
        key: value.view(torch.int16 if value.dtype == BF16 else torch.int32).numpy() for key, value in found.items()
    }


def check(root: Path, names: list[str]) -> None:
    first = tensors(root / names[0])
    moments = [key for key in first if key.startswith("optimizer.state.exp_avg.")]
    assert len(first) == 4 * len(moments) > 20
    assert all(first[key].any() for key in moments)
    for name in names[1:]:
        other = tensors(root / name)
        assert other.keys() == first.keys(), name
        for key, value in first.items():
            assert np.array_equal(other[key], value), (name, key)


def test_weights_and_optimizer_pass_through_dense_layouts(tmp_path: Path) -> None:
    names = [name for name, _, _ in DENSE]
    for before, (name, world, layout) in zip([None, *names], DENSE, strict=False):
        run_ranks(world, pass_on, layout, tmp_path, before, name)
    check(tmp_path, names)


def test_weights_and_optimizer_pass_through_layouts_of_experts(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = make_tiny_hf(tmp_path_factory.mktemp("model") / "model", moe.CASE.family, num_hidden_layers=2)
    names = ["pipeline", "inside_tensor", "one", "experts"]
    for before, name in zip([None, *names], names, strict=False):
        layout = moe.LAYOUTS[name]
        run_ranks(layout.world, pass_experts_on, layout, model, tmp_path, before, name)
    check(tmp_path, names)
