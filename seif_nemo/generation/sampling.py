"""Draw one token per row, so that the token depends on nothing but (logits, seed, position).

Random numbers are counter-based: `uniforms` hashes the pair (seed of the request, index of the token in the response),
so neither the batch a request is in, nor its slot, nor the rank that serves it plays a part. One uniform number picks
one token by inverse CDF in float64.

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
_TO_UNIT = 2.0**-53


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a bijection of 64-bit words."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


def seed_keys(seeds: list[int]) -> NDArray[np.uint64]:
    """One 64-bit key per request, from its seed (any int; taken modulo 2**64). Close seeds give unrelated keys."""
    words = np.array([seed & _MASK64 for seed in seeds], dtype=np.uint64)
    return _mix(words + _GOLDEN)


def uniforms(keys_B: NDArray[np.uint64], positions_B: NDArray[np.int64]) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1): element `position` of the SplitMix64 stream that starts from `key`, row by row."""
    counters = (positions_B.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    return (_mix(keys_B + counters) >> np.uint64(11)).astype(np.float64) * _TO_UNIT


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


def draw(logits_BV: Tensor, uniform_B: Tensor, *, temperature: float, top_p: float, top_k: int) -> Drawn:
    """One token per row.

    logits_BV is of any float type; uniform_B is float64 in [0, 1). top_k keeps the k most probable tokens, top_p then
    the smallest set of most probable tokens whose share of what is left reaches top_p; ties go to the lower id. A
    non-finite logit gives a NaN log-prob and an arbitrary valid token: callers check the log-probs once at the end.
    """
    scaled_BV = logits_BV.double()
    if temperature > 0 and temperature != 1.0:
        scaled_BV = scaled_BV / temperature
    scaled_BV = scaled_BV - scaled_BV.amax(dim=-1, keepdim=True)
    weight_BV = scaled_BV.exp()
    cumulative_BV = weight_BV.cumsum(dim=-1)
    log_total_B1 = cumulative_BV[:, -1:].log()
    if temperature == 0:
        token_B1 = logits_BV.argmax(dim=-1, keepdim=True)
    else:
        if top_k > 0 or top_p < 1:
            cumulative_BV = torch.where(kept_tokens(weight_BV, top_p=top_p, top_k=top_k), weight_BV, 0.0).cumsum(dim=-1)
        token_B1 = _invert(cumulative_BV, uniform_B[:, None])
    logprob_B1 = scaled_BV.gather(1, token_B1) - log_total_B1
    return Drawn(token_B=token_B1[:, 0], logprob_B=logprob_B1[:, 0].float())


def _invert(cumulative_BV: Tensor, uniform_B1: Tensor) -> Tensor:
    """The first token whose cumulative weight exceeds uniform × total. Tokens of weight 0 are never it."""
    total_B1 = cumulative_BV[:, -1:]
    # Rounding can make uniform × total equal the total; then no token exceeds it, and the last positive one is meant.
    target_B1 = torch.minimum(uniform_B1 * total_B1, torch.nextafter(total_B1, torch.zeros_like(total_B1)))
    token_B1 = torch.searchsorted(cumulative_BV, target_B1, right=True)
    return token_B1.clamp_(max=cumulative_BV.shape[-1] - 1)  # only NaN reaches the clamp


def kept_tokens(weight_BV: Tensor, *, top_p: float, top_k: int) -> Tensor:
    """Which tokens top-k and then top-p leave, bool [B, V]. weight_BV is non-negative, float64, not all 0 in a row."""
    sorted_BV, order_BV = weight_BV.sort(dim=-1, descending=True, stable=True)
    if top_k > 0:
        sorted_BV = sorted_BV.clone()
        sorted_BV[:, top_k:] = 0.0
    kept_BV = sorted_BV > 0
    if top_p < 1:
        cumulative_BV = sorted_BV.cumsum(dim=-1)
        before_BV = cumulative_BV - sorted_BV
        kept_BV &= before_BV < top_p * cumulative_BV[:, -1:]
    return torch.zeros_like(kept_BV).scatter_(1, order_BV, kept_BV)
