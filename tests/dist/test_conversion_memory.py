"""What a rank holds while it reads its shard: the shard and one tensor."""

import ctypes
from pathlib import Path

import torch

from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.models.architecture import read_architecture
from seif_nemo.models.builder import build_gpt
from seif_nemo.models.plain_model import PlainModel
from seif_nemo.observability.anonymous_peak import AnonymousPeak, anonymous_bytes
from seif_nemo.parallel.topology import build_topology, shutdown
from seif_nemo.weights.hf import load_hf_weights
from seif_nemo.weights.hf_mapping import expected_shapes
from tests.dist.harness import run_ranks
from tools.bench.conversion import random_architecture, write_random_model

_M_MMAP_THRESHOLD = -3  # malloc.h
_SLACK = 4 << 20  # what Python and the allocator take beside tensors


def _peak(path: Path) -> tuple[int, int, int]:
    """Of a load: growth of anonymous memory at its peak, bytes of this rank's shard, of the largest tensor on disk."""
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)  # else glibc keeps freed blocks of up to 32 MiB
    topology = build_topology(ParallelConfig(tensor=2), seed=0, threads=1)
    arch = read_architecture(path)
    with AnonymousPeak() as peak:
        modules = build_gpt(arch, topology, dtype=torch.bfloat16, max_sequence_length=64)
        load_hf_weights(modules, arch, topology, path)
    shard = sum(parameter.nbytes for parameter in PlainModel(modules, topology).parameters())
    largest = max(torch.Size(shape).numel() for shape in expected_shapes(arch).values()) * 2
    shutdown(topology)
    return peak.grown, shard, largest


def test_a_rank_holds_its_shard_and_one_tensor(tmp_path: Path) -> None:
    path = tmp_path / "hf"
    write_random_model(path, random_architecture(4, 1024, 12004), max_bytes=60_000_000)  # a vocabulary with padding
    whole = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    for grown, shard, largest in run_ranks(2, _peak, path):
        assert whole // 2 <= shard < 0.51 * whole
        assert shard < grown <= shard + largest + _SLACK, (grown, shard, largest)


def test_the_peak_is_seen_and_mapped_files_are_not(tmp_path: Path) -> None:
    with AnonymousPeak() as peak:
        before = anonymous_bytes()
        block = torch.ones(64 << 20, dtype=torch.uint8)
        assert anonymous_bytes() > before + 0.9 * block.nbytes
        del block
    assert 60 << 20 <= peak.grown < 72 << 20
    (tmp_path / "file").write_bytes(bytes(64 << 20))
    with AnonymousPeak() as peak:
        mapped = torch.from_file(str(tmp_path / "file"), shared=False, size=64 << 20, dtype=torch.uint8)
        assert mapped[::1024].max() == 0  # touches every page
    assert peak.grown < 8 << 20
