"""Digests of files and of what ranks believe: what a load and the ledger compare. Those of weights: tensor_sums.py."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

DIGEST_BYTES = 16
_MODEL_FILES = (".json", ".safetensors", ".txt", ".model", ".jinja")


def gather_digests(digest: str, *, group: dist.ProcessGroup | None, device: torch.device) -> list[str]:
    """Every rank's digest, in rank order, on every rank of `group`. Collective."""
    own = torch.frombuffer(bytearray.fromhex(digest), dtype=torch.uint8).to(device)
    assert own.numel() == DIGEST_BYTES, f"{digest!r} is not a digest of {DIGEST_BYTES} bytes"
    gathered = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(gathered, own, group=group)
    return [bytes(rank_digest.tolist()).hex() for rank_digest in gathered]


def odd_rank(digest: str, *, group: dist.ProcessGroup | None, device: torch.device) -> int | None:
    """The first rank of `group` whose digest is not that of rank 0, the same on every rank. Collective."""
    first, *others = gather_digests(digest, group=group, device=device)
    return next((rank for rank, other in enumerate(others, start=1) if other != first), None)


def join_digests(digests: Sequence[str]) -> str:
    """One digest of several, order included."""
    return hashlib.blake2b("\n".join(digests).encode(), digest_size=DIGEST_BYTES).hexdigest()


def digest_file(path: Path) -> str:
    """Hex blake2b digest of a file's bytes (the plain one: `b2sum -l 128` prints the same)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES)).hexdigest()


def digest_folder_sample(folder: Path, *, whole_bytes: int = 16 << 20, num_blocks: int = 64) -> str:
    """Hex blake2b digest of a model folder's JSON, safetensors and tokenizer files: names, sizes and contents.

    Of a file larger than `whole_bytes` only `num_blocks` blocks, spread evenly from the first byte to the last, are
    read: 140 GB of weights must not be read once more at every start.
    """
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for path in sorted(path for path in folder.iterdir() if path.suffix in _MODEL_FILES and path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        if size <= whole_bytes:
            digest.update(path.read_bytes())
            continue
        block = whole_bytes // num_blocks
        with path.open("rb") as file:
            for index in range(num_blocks):
                file.seek((size - block) * index // (num_blocks - 1))
                digest.update(file.read(block))
    return digest.hexdigest()
