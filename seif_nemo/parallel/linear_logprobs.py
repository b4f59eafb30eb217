"""Log-probs of given tokens and entropies straight from hidden states: the logits never exist as a whole.

The output projection, the softmax over a vocabulary that is sharded over the tensor-parallel group, and their
gradients are computed for a few tokens at a time, forward and again backward. Memory is that of the chunk plus the
gradient of the weight; four products with the weight instead of three are the price. Sources of the idea: Wijmans et
al. 2024, "Cut your losses" (arXiv 2411.09009); Hsu et al. 2024, Liger (arXiv 2410.10989). What is exact here beside
them: any upstream gradient per token, entropies with gradient, vocabulary shards with padding, packed tokens.

Shape suffixes: T tokens, H hidden, V vocabulary rows of this rank's weight, C tokens of one chunk.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup

CHUNK_ELEMENTS = 2**24  # fp32 temporaries hold at most this many logits at a time (64 MiB each)


@dataclass(frozen=True, slots=True, eq=False)
class TokenScores:
    """Both fp32 [T] and differentiable; the same on every rank of the tensor-parallel group."""

    logprobs_T: Tensor
    entropies_T: Tensor  # of the distribution that the token was drawn from, in nats


@dataclass(frozen=True, slots=True)
class _Shard:
    """What one rank does: its first `valid` rows of the weight are tokens, the first of them number `first`."""

    first: int
    valid: int
    scale: float  # 1 / temperature
    group: ProcessGroup | None
    chunk_elements: int


def linear_logprobs(
    hidden_TH: Tensor,
    weight_VH: Tensor,
    tokens_T: Tensor,
    *,
    vocab_size: int,
    temperature: float = 1.0,
    group: ProcessGroup | None = None,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> TokenScores:
    """log softmax(hidden · weightᵀ / temperature) at `tokens`, and the entropy of that softmax.

    Rank r of the tensor-parallel `group` (None: no sharding) holds rows [r V, (r + 1) V) of the weight; rows from
    `vocab_size` on are padding: they take no probability and get zero gradient. Logits are computed in the type of the
    weight and widened to fp32. The gradient of `hidden_TH` is this rank's part: it must be summed over the group by
    what made the hidden states (Megatron's copy to, or gather from, the tensor-parallel region).

    Forward needs two small collectives ([T] and [3, T]), backward none. Raises `ValueError` for a temperature that is
    not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be positive to give log-probs")
    assert hidden_TH.dim() == 2 and weight_VH.dim() == 2 and hidden_TH.shape[1] == weight_VH.shape[1]
    assert tokens_T.shape == hidden_TH.shape[:1]
    world = 1 if group is None else dist.get_world_size(group)
    rank = 0 if group is None else dist.get_rank(group)
    rows = weight_VH.shape[0]
    assert 0 < vocab_size <= rows * world, f"{vocab_size} tokens in {world} x {rows} rows"
    shard = _Shard(
        first=rank * rows,
        valid=min(max(vocab_size - rank * rows, 0), rows),
        scale=1.0 / temperature,
        group=group if world > 1 else None,
        chunk_elements=chunk_elements,
    )
    logprobs_T, entropies_T = cast(tuple[Tensor, Tensor], _LinearLogProbs.apply(hidden_TH, weight_VH, tokens_T, shard))
    return TokenScores(logprobs_T, entropies_T)


class _LinearLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_TH: Tensor, weight_VH: Tensor, tokens_T: Tensor, shard: _Shard
    ) -> tuple[Tensor, Tensor]:
        targets_T = tokens_T - shard.first  # outside [0, valid) the token lives on another rank
        mine_T = (targets_T >= 0) & (targets_T < shard.valid)
        targets_T = torch.where(mine_T, targets_T, 0)
        size = (hidden_TH.shape[0],)
        max_T = hidden_TH.new_full(size, -torch.inf, dtype=torch.float32)
        # Σ exp(l - max), Σ exp(l - max) l, the logit of the token
        sums_3T = hidden_TH.new_zeros((3, *size), dtype=torch.float32)
        if shard.valid:
            for rows in _chunks(size[0], shard):
                logits_CV = _logits(hidden_TH[rows], weight_VH[: shard.valid], shard.scale)
                sums_3T[2, rows] = logits_CV.gather(1, targets_T[rows, None])[:, 0]
                max_T[rows] = logits_CV.amax(1)
                exponentials_CV = (logits_CV - max_T[rows, None]).exp_()
                sums_3T[0, rows] = exponentials_CV.sum(1)
                sums_3T[1, rows] = exponentials_CV.mul_(logits_CV).sum(1)
        if shard.group is not None:
            global_max_T = max_T.clone()
            dist.all_reduce(global_max_T, op=dist.ReduceOp.MAX, group=shard.group)
            sums_3T[:2] *= (max_T - global_max_T).exp()
            sums_3T[2] *= mine_T
            dist.all_reduce(sums_3T, group=shard.group)
            max_T = global_max_T
        normaliser_T = max_T + sums_3T[0].log()
        entropies_T = normaliser_T - sums_3T[1] / sums_3T[0]
        ctx.save_for_backward(hidden_TH, weight_VH, targets_T, mine_T, normaliser_T, entropies_T)
        ctx.shard = shard
        ctx.set_materialize_grads(False)
        return sums_3T[2] - normaliser_T, entropies_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """With p = softmax(l): d logprob / d l_j = [j = token] - p_j, d entropy / d l_j = -p_j (log p_j + entropy)."""
        logprob_gradient_T, entropy_gradient_T = gradients
        hidden_TH, weight_VH, targets_T, mine_T, normaliser_T, entropies_T = ctx.saved_tensors
        shard: _Shard = ctx.shard
        hidden_gradient_TH = torch.zeros_like(hidden_TH)
        weight_gradient_VH = torch.zeros_like(weight_VH, dtype=torch.float32)
        if (logprob_gradient_T is None and entropy_gradient_T is None) or not shard.valid:
            return hidden_gradient_TH, weight_gradient_VH.to(weight_VH.dtype), None, None
        valid_VH, valid_gradient_VH = weight_VH[: shard.valid], weight_gradient_VH[: shard.valid]
        for rows in _chunks(len(hidden_TH), shard):
            # log p, then p, then the gradient of the logits, in place: one chunk of memory
            log_p_CV = _logits(hidden_TH[rows], valid_VH, shard.scale).sub_(normaliser_T[rows, None])
            gradient_CV = log_p_CV.exp()
            factor_C1 = _column(logprob_gradient_T, rows)
            if entropy_gradient_T is None:
                gradient_CV.mul_(-factor_C1)
            else:
                weight_CV = log_p_CV.add_(entropies_T[rows, None]).mul_(_column(entropy_gradient_T, rows))
                gradient_CV.mul_(weight_CV.add_(factor_C1).neg_())
            if logprob_gradient_T is not None:
                gradient_CV.scatter_add_(1, targets_T[rows, None], factor_C1 * mine_T[rows, None])
            gradient_CV = gradient_CV.mul_(shard.scale).to(weight_VH.dtype)
            hidden_gradient_TH[rows] = gradient_CV @ valid_VH
            if weight_VH.dtype == torch.float32:
                valid_gradient_VH.addmm_(gradient_CV.T, hidden_TH[rows])
            else:
                valid_gradient_VH += gradient_CV.T @ hidden_TH[rows]
        return hidden_gradient_TH, weight_gradient_VH.to(weight_VH.dtype), None, None


def _column(gradient_T: Tensor | None, rows: slice) -> Tensor:
    """The upstream gradients of a chunk as [C, 1]; 0 where there is none."""
    return torch.zeros(()) if gradient_T is None else gradient_T[rows, None].float()


def _logits(hidden_CH: Tensor, weight_VH: Tensor, scale: float) -> Tensor:
    logits_CV = (hidden_CH @ weight_VH.T).float()
    return logits_CV if scale == 1.0 else logits_CV.mul_(scale)


def _chunks(tokens: int, shard: _Shard) -> Iterator[slice]:
    step = max(1, shard.chunk_elements // shard.valid)
    return (slice(start, start + step) for start in range(0, tokens, step))
