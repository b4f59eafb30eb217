"""mbridge as a second opinion on where each weight goes. Dense models only: docs/convert.md says where it is wrong."""

from pathlib import Path
from typing import Any

import pytest
import torch

from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.models.architecture import read_architecture
from seif_nemo.models.builder import build_gpt
from seif_nemo.parallel.topology import build_topology, shutdown
from seif_nemo.weights.hf import hf_tensors, load_hf_weights
from tests.dist.harness import run_ranks
from tests.tiny_hf import make_tiny_hf

pytest.importorskip("mbridge", reason="mbridge is not installed: pip install mbridge==0.15.1 --no-deps")

# A vocabulary that needs no padding: what stands in the padding is nobody's business.
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"family": "llama", "vocab_size": 96},
    "qwen2": {"family": "qwen2", "vocab_size": 96, "dtype": torch.bfloat16},
    # Untied: a tied model changes a table of mbridge's class, and with it what later models are taken for.
    "qwen3": {"family": "qwen3", "vocab_size": 96, "head_dim": 16},
}
LAYOUTS = [ParallelConfig(), ParallelConfig(tensor=2), ParallelConfig(pipeline=2), ParallelConfig(tensor=2, pipeline=2)]


def _compare(models: dict[str, Path], layouts: list[ParallelConfig]) -> list[str]:
    """Every parameter that differs after both have loaded it, every tensor that differs after both have exported it."""
    from mbridge import AutoBridge

    different: list[str] = []
    for layout in layouts:
        topology = build_topology(layout, seed=0, threads=1)
        for name, path in models.items():
            arch = read_architecture(path)
            dtype = MODELS[name].get("dtype", torch.float32)
            ours, theirs = (build_gpt(arch, topology, dtype=dtype, max_sequence_length=64) for _ in range(2))
            load_hf_weights(ours, arch, topology, path)
            bridge = AutoBridge.from_pretrained(str(path), dtype=dtype)
            with torch.no_grad():
                bridge.load_weights(theirs, str(path))
            for (key, a), b in zip(ours[0].named_parameters(), theirs[0].parameters(), strict=True):
                if not torch.equal(a, b):
                    different.append(f"load {name} {layout.tensor} {layout.pipeline} {key}")
            if layout.pipeline > 1:  # its export broadcasts over stages on a device that it takes from CUDA
                continue
            exported = {key: tensor.detach().clone() for key, tensor in bridge.export_weights(ours)}
            for key, tensor in hf_tensors(ours, arch, topology):
                if not torch.equal(tensor, exported[key]):
                    different.append(f"export {name} {layout.tensor} {key}")
            if topology.is_main and set(exported) != {key for key, _ in hf_tensors(ours, arch, topology)}:
                different.append(f"names {name}")
            elif not topology.is_main:
                for _ in hf_tensors(ours, arch, topology):
                    pass
        shutdown(topology)
    return different


@pytest.mark.parametrize("world", [1, 2, 4])
def test_mbridge_agrees(world: int, tmp_path: Path) -> None:
    models = {name: make_tiny_hf(tmp_path / name, seed=i, **spec) for i, (name, spec) in enumerate(MODELS.items())}
    layouts = [layout for layout in LAYOUTS if layout.tensor * layout.pipeline == world]
    assert run_ranks(world, _compare, models, layouts) == [[]] * world
