"""A digest of a tensor that can be made of its shards, wherever it was cut, and is the same for every way of cutting.

A tensor [rows, columns] is read as little-endian 64-bit words x along its rows. Its sums, one per lane, are

    S = Σ_row u(name, row) · Σ_word w(word) · x(row, word)        mod 2^64

with odd pseudo-random weights u and w. The sums of shards add up to those of the whole, zeros (padding) add nothing,
and a single changed element always shows: its change is multiplied by odd numbers only. An element is weighted by its
place in the row's words even where a shard does not begin or end at a word. It is a checksum against faults, not
against forgers: unlike independent changes of many words, few changes can cancel. The higher a bit stands in its word,
the fewer bits of the sums see it; flips of the topmost one, a sign in every fourth bf16, cancel in pairs.

The inner sum is one pass over the memory at the speed of a copy; hashing functions of the usual kind are ten times
slower and depend on the order.
"""

import functools
import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

LANES = 2
_WORD_BYTES = 8
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_UNSIGNED = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32, 8: torch.int64}
_CHUNK_WORDS = 1 << 24
_FLAT_COLUMNS = 1 << 14


def row_weights(name: str, rows: Tensor) -> Tensor:
    """Weights u, int64 [LANES, rows], of the rows with these numbers [rows] in the whole tensor `name`."""
    numbers = rows.numpy().astype(np.uint64)
    lanes: list[np.ndarray] = []
    for lane in range(LANES):
        key = hashlib.blake2b(f"{lane} {name}".encode(), digest_size=_WORD_BYTES).digest()
        lanes.append(_odd(numbers + np.frombuffer(key, dtype=np.uint64)[0]))
    return torch.from_numpy(np.stack(lanes).view(np.int64))


def shard_sums(shard: Tensor, weights: Tensor, first_column: int = 0) -> Tensor:
    """Each row's part of the sums, int64 [LANES, rows], of a contiguous shard [rows] or [rows, columns].

    `weights` are those of `row_weights`, on the shard's device; `first_column` is the place of the shard's first column
    in the whole tensor. Raises ValueError for a shard that is not contiguous.
    """
    if not shard.is_contiguous():
        raise ValueError(f"a shard of shape {tuple(shard.shape)} is not contiguous: no digest of it")
    if not shard.numel():
        return torch.zeros_like(weights)
    matrix = shard.detach().view(shard.shape[0], -1)
    size = matrix.element_size()
    start, width = first_column * size, matrix.shape[1] * size
    aligned = start % _WORD_BYTES == width % _WORD_BYTES == matrix.storage_offset() * size % _WORD_BYTES == 0
    if aligned:
        words, factors = matrix.view(torch.int64), _word_weights(start // _WORD_BYTES, width // _WORD_BYTES)
    else:
        words, factors = _elements(matrix), _element_weights(first_column, matrix.shape[1], size)
    return weights * _times(words, factors.to(shard.device))


def flat_sums(buffers: Sequence[Tensor]) -> Tensor:
    """The sums, int64 [LANES], of flat buffers that are compared with themselves only: they have no name."""
    total = torch.zeros(LANES, dtype=torch.int64)
    for number, buffer in enumerate(buffers):
        whole = buffer.numel() // _FLAT_COLUMNS * _FLAT_COLUMNS
        for part in (buffer[:whole].view(-1, _FLAT_COLUMNS), buffer[whole:].view(1, -1)):
            weights = row_weights(str(number), torch.arange(len(part))).to(buffer.device)
            total += shard_sums(part, weights).sum(dim=1).cpu()
    return total


def tensor_sums(name: str, tensor: Tensor) -> Tensor:
    """The sums, int64 [LANES], of a whole tensor."""
    weights = row_weights(name, torch.arange(tensor.shape[0])).to(tensor.device)
    return shard_sums(tensor, weights).sum(dim=1).cpu()


def sums_digest(names: list[str], sums: Tensor, dtype: torch.dtype) -> str:
    """Hex digest of many tensors of one dtype: `sums` is int64 [tensors, LANES].

    Their order does not matter. A tensor of zeros counts as much as one that is not there.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, row in sorted(zip(names, sums.tolist(), strict=True)):
        if any(row):
            digest.update(f"{name} {dtype} {row}\n".encode())
    return digest.hexdigest()


def _times(words: Tensor, factors: Tensor) -> Tensor:
    """words [rows, n] times factors [n], mod 2^64."""
    if words.device.type == "cpu":
        return torch.mv(words, factors)
    return _times_in_chunks(words, factors)  # never ran on a GPU


def _times_in_chunks(words: Tensor, factors: Tensor) -> Tensor:
    """The same where there is no product of integer matrices: torch has none for CUDA."""
    rows = max(1, _CHUNK_WORDS // words.shape[1])
    return torch.cat([(part * factors).sum(dim=1) for part in words.split(rows)])


def _elements(matrix: Tensor) -> Tensor:
    """Each element's bits as an unsigned number, in int64."""
    return matrix.view(_UNSIGNED[matrix.element_size()]).to(torch.int64)


@functools.lru_cache(maxsize=64)
def _word_weights(first: int, count: int) -> Tensor:
    return torch.from_numpy(_odd(np.arange(first, first + count, dtype=np.uint64)).view(np.int64))


def _element_weights(first: int, count: int, size: int) -> Tensor:
    """A word is the sum of its elements, shifted: so is its product with a weight."""
    per_word = _WORD_BYTES // size
    places = torch.arange(first, first + count)
    weights = _word_weights(first // per_word, (first + count - 1) // per_word - first // per_word + 1)
    return weights[places // per_word - first // per_word] << (places % per_word * size * 8)


def _odd(numbers: np.ndarray) -> np.ndarray:
    """Odd pseudo-random numbers (the mixing of SplitMix64, Steele et al., OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        mixed = (numbers + np.uint64(1)) * _GOLDEN
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))) | np.uint64(1)
