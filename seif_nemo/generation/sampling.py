"""Draw one token per row, so that the token depends on nothing but (logits, seed, position).

Random numbers are counter-based: they are hashes of (seed of the request, index of the token in the response, token
id), so neither the batch a request is in, nor its slot, nor the rank that serves it plays a part.

A token is drawn by an exponential race: token v arrives after e_v / weight_v, with e_v exponential, and the first one
is taken (the Gumbel-max trick, Yellott 1977, without the second logarithm). Inverse CDF would need one number instead
of one per vocabulary entry, but is fragile: other batch shapes round logits differently in the last bit, which moves
every boundary of the CDF. Measured on 387 tokens in float32, that changed one token in about 5,000; in a race only a
tie within rounding changes.

Shape suffixes: B rows, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_MASK64 = (1 << 64) - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_GOLDEN32 = 0x9E3779B1 - (1 << 32)  # torch has no unsigned arithmetic: the same bits as int32
_ROUNDS32 = ((16, 0x7FEB352D), (15, 0x846CA68B - (1 << 32)))
_LAST_SHIFT32 = 16
_FRACTION_BITS = 23  # so that (2k + 1) / 2**24 is exact in float32, above 0 and below 1


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a bijection of 64-bit words."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


def _mix32_(x: Tensor) -> Tensor:
    """`lowbias32` (Wellons, "Prospecting for hash functions", 2018) in place: a bijection of 32-bit words."""
    for shift, factor in _ROUNDS32:
        x ^= (x >> shift) & ((1 << (32 - shift)) - 1)
        x *= factor
    x ^= (x >> _LAST_SHIFT32) & ((1 << (32 - _LAST_SHIFT32)) - 1)
    return x


def seed_keys(seeds: list[int]) -> NDArray[np.uint64]:
    """One 64-bit key per request, from its seed (any int; taken modulo 2**64). Close seeds give unrelated keys."""
    words = np.array([seed & _MASK64 for seed in seeds], dtype=np.uint64)
    return _mix(words + _GOLDEN)


def noise_keys(keys_B: NDArray[np.uint64], positions_B: NDArray[np.int64]) -> NDArray[np.int64]:
    """One 64-bit key per token to draw: element `position` of the SplitMix64 stream that starts from `key`."""
    counters = (positions_B.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    return _mix(keys_B + counters).view(np.int64)


def exponentials(noise_key_B: Tensor, vocab_size: int) -> Tensor:
    """Exponential variates of mean 1, [B, V] float32, from int64 keys: a keyed 32-bit hash of the token id.

    Their fraction has 23 bits, so the least is 2**-24, and probabilities below about 1e-7 are not resolved.
    """
    halves_B2 = noise_key_B.contiguous().view(torch.int32).view(-1, 2)
    token_V = torch.arange(vocab_size, dtype=torch.int32, device=noise_key_B.device) * _GOLDEN32
    words_BV = _mix32_(token_V ^ halves_B2[:, :1])
    words_BV += halves_B2[:, 1:]
    words_BV = _mix32_(words_BV)
    words_BV &= (1 << _FRACTION_BITS) - 1
    half = 2.0 ** -(_FRACTION_BITS + 1)
    minus_uniform_BV = words_BV.float().mul_(-2 * half).sub_(half)
    return minus_uniform_BV.log1p_().neg_()


@dataclass(frozen=True, slots=True)
class Drawn:
    """token_B int64; logprob_B float32, under the whole temperature-scaled distribution (temperature 1 if greedy)."""

    token_B: Tensor
    logprob_B: Tensor


def check_sampling(temperature: float, top_p: float, top_k: int, max_new_tokens: int) -> None:
    """Raises `ValueError` for a value outside its range, naming the field."""
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature={temperature} must be finite and at least 0 (0 is greedy)")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} must be in (0, 1]; 1 is off")
    if top_k < 0:
        raise ValueError(f"top_k={top_k} must be 0 (off) or positive")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens} must be at least 1")


def draw(logits_BV: Tensor, noise_key_B: Tensor, *, temperature: float, top_p: float, top_k: int) -> Drawn:
    """One token per row.

    logits_BV is of any float type; noise_key_B are int64 from `noise_keys`. top_k keeps the k most probable tokens,
    top_p then the smallest set of most probable tokens whose share of what is left reaches top_p; ties go to the lower
    id. A logit that is not finite gives a NaN log-prob: callers check the log-probs once at the end.
    """
    scaled_BV = logits_BV.float()
    if temperature > 0 and temperature != 1.0:
        scaled_BV = scaled_BV / temperature
    scaled_BV = scaled_BV - scaled_BV.amax(dim=-1, keepdim=True)
    weight_BV = scaled_BV.exp()
    log_total_B1 = weight_BV.sum(dim=-1, keepdim=True).log()
    if temperature == 0:
        token_B1 = logits_BV.argmax(dim=-1, keepdim=True)
    else:
        if top_k > 0 or top_p < 1:
            weight_BV = torch.where(kept_tokens(weight_BV.double(), top_p=top_p, top_k=top_k), weight_BV, 0.0)
        arrival_BV = exponentials(noise_key_B, logits_BV.shape[-1])
        token_B1 = torch.div(weight_BV, arrival_BV, out=arrival_BV).argmax(dim=-1, keepdim=True)
    logprob_B1 = scaled_BV.gather(1, token_B1) - log_total_B1
    return Drawn(token_B=token_B1[:, 0], logprob_B=logprob_B1[:, 0])


def kept_tokens(weight_BV: Tensor, *, top_p: float, top_k: int) -> Tensor:
    """Which tokens top-k and then top-p leave, bool [B, V]. weight_BV is non-negative, float64, not all 0 in a row."""
    sorted_BV, order_BV = weight_BV.sort(dim=-1, descending=True, stable=True)
    if top_k > 0:
        sorted_BV = sorted_BV.clone()
        sorted_BV[:, top_k:] = 0.0
    kept_BV = sorted_BV > 0
    if top_p < 1:
        # On CUDA cumsum has no fixed order of addition, and raises where deterministic algorithms are asked for.
        # This CUDA path has never run. Its sums are tested on the CPU.
        cumulative_BV = doubling_sums(sorted_BV) if sorted_BV.is_cuda else sorted_BV.cumsum(dim=-1)
        before_BV = cumulative_BV - sorted_BV
        kept_BV &= before_BV < top_p * cumulative_BV[:, -1:]
    return torch.zeros_like(kept_BV).scatter_(1, order_BV, kept_BV)


def doubling_sums(value_BV: Tensor) -> Tensor:
    """Running sums along V, [B, V], in a fixed order of addition on every device: log2(V) additions of whole tensors.

    Source: the scan of Hillis and Steele, "Data parallel algorithms" (CACM 1986).
    """
    sums_BV, step = value_BV, 1
    while step < value_BV.shape[-1]:
        sums_BV = torch.cat([sums_BV[:, :step], sums_BV[:, step:] + sums_BV[:, :-step]], dim=-1)
        step *= 2
    return sums_BV
