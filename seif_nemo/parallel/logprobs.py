"""Log-probs of given tokens from logits whose vocabulary is sharded over the tensor-parallel group.

Shape suffixes: T tokens, V vocabulary columns of this rank, C tokens of one chunk.
"""

from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup

CHUNK_ELEMENTS = 2**24  # fp32 temporaries hold at most this many logits at a time (64 MiB each)


def vocab_parallel_logprobs(
    logits_TV: Tensor,
    tokens_T: Tensor,
    *,
    vocab_size: int,
    temperature: float = 1.0,
    group: ProcessGroup | None = None,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> Tensor:
    """log softmax(logits / temperature) at `tokens`, in fp32 [T]; the same on every rank of `group`.

    Rank r of the tensor-parallel `group` (None: no sharding) holds columns [r V, (r + 1) V) of the logits, in any
    floating type. Columns from `vocab_size` on are padding: they take no probability and get zero gradient.

    Values and gradients are those of the unsharded fp32 log-softmax. Logits are widened to fp32 in chunks of tokens
    only; forward needs two small collectives ([T] and [2, T]), backward none.

    Raises `ValueError` for a temperature that is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be positive to give log-probs")
    assert logits_TV.dim() == 2
    assert tokens_T.shape == logits_TV.shape[:1]
    world = 1 if group is None else dist.get_world_size(group)
    rank = 0 if group is None else dist.get_rank(group)
    columns = logits_TV.shape[1]
    assert 0 < vocab_size <= columns * world, f"{vocab_size} tokens in {world} x {columns} columns"
    valid = min(max(vocab_size - rank * columns, 0), columns)
    result = _VocabParallelLogProbs.apply(
        logits_TV, tokens_T - rank * columns, valid, 1.0 / temperature, group if world > 1 else None, chunk_elements
    )
    return cast(Tensor, result)


class _VocabParallelLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits_TV: Tensor,
        targets_T: Tensor,  # column of the token on this rank; outside [0, valid) it lives on another rank
        valid: int,
        scale: float,
        group: ProcessGroup | None,
        chunk_elements: int,
    ) -> Tensor:
        mine_T = (targets_T >= 0) & (targets_T < valid)
        targets_T = torch.where(mine_T, targets_T, 0)
        size = (logits_TV.shape[0],)
        max_T = logits_TV.new_full(size, -torch.inf, dtype=torch.float32)
        sums_2T = logits_TV.new_zeros((2, *size), dtype=torch.float32)  # sum of exponentials, logit of the token
        if valid:
            for rows in _chunks(logits_TV, chunk_elements):
                logits_CV = _widen(logits_TV[rows, :valid], scale)
                max_T[rows] = logits_CV.amax(1)
                sums_2T[1, rows] = logits_CV.gather(1, targets_T[rows, None])[:, 0]
                sums_2T[0, rows] = (logits_CV - max_T[rows, None]).exp_().sum(1)
        if group is not None:
            global_max_T = max_T.clone()
            dist.all_reduce(global_max_T, op=dist.ReduceOp.MAX, group=group)
            sums_2T[0] *= (max_T - global_max_T).exp()
            sums_2T[1] *= mine_T
            dist.all_reduce(sums_2T, group=group)
            max_T = global_max_T
        log_normaliser_T = max_T + sums_2T[0].log()
        ctx.save_for_backward(logits_TV, targets_T, mine_T, log_normaliser_T)
        ctx.valid, ctx.scale, ctx.chunk_elements = valid, scale, chunk_elements
        return sums_2T[1] - log_normaliser_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """d logprob / d logit = (one_hot - softmax) / temperature, recomputed chunk by chunk from the logits."""
        (gradient_T,) = gradients
        logits_TV, targets_T, mine_T, log_normaliser_T = ctx.saved_tensors
        gradient_TV = torch.zeros_like(logits_TV)
        scaled_T = gradient_T * ctx.scale
        if ctx.valid:
            for rows in _chunks(logits_TV, ctx.chunk_elements):
                softmax_CV = _widen(logits_TV[rows, : ctx.valid], ctx.scale).sub_(log_normaliser_T[rows, None]).exp_()
                softmax_CV *= -scaled_T[rows, None]
                softmax_CV.scatter_add_(1, targets_T[rows, None], (scaled_T[rows] * mine_T[rows])[:, None])
                gradient_TV[rows, : ctx.valid] = softmax_CV
        return gradient_TV, None, None, None, None, None


def _widen(logits_CV: Tensor, scale: float) -> Tensor:
    """A fresh fp32 copy, scaled."""
    if scale == 1.0:
        return logits_CV.to(torch.float32, copy=True)
    return logits_CV.float() * scale


def _chunks(logits_TV: Tensor, chunk_elements: int) -> Iterator[slice]:
    tokens, columns = logits_TV.shape
    step = max(1, chunk_elements // columns)
    return (slice(start, start + step) for start in range(0, tokens, step))
