"""Log-probs of given tokens and entropies straight from hidden states: the logits never exist as a whole.

The output projection, the softmax over a vocabulary that is sharded over the tensor-parallel group, and their
gradients are computed tile by tile (some tokens against some of the vocabulary), forward and again backward. Memory is
that of two tiles plus the gradient of the weight; four products with the weight instead of three are the price. Sources
of the idea: Wijmans et al. 2024, "Cut your losses" (arXiv 2411.09009); Hsu et al. 2024, Liger (arXiv 2410.10989). What
is exact here beside them: any upstream gradient per token, entropies with gradient, vocabulary shards with padding.

Shape suffixes: T tokens, H hidden, V rows of this rank's weight, C tokens and B columns of one tile, M its elements.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup

TILE_ELEMENTS = 2**24  # fp32 temporaries hold at most this many logits at a time (64 MiB each)
MAX_TILE_TOKENS = 4096


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
    tile_elements: int


def linear_logprobs(
    hidden_TH: Tensor,
    weight_VH: Tensor,
    tokens_T: Tensor,
    *,
    vocab_size: int,
    temperature: float = 1.0,
    group: ProcessGroup | None = None,
    tile_elements: int = TILE_ELEMENTS,
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
        tile_elements=tile_elements,
    )
    logprobs_T, entropies_T = cast(tuple[Tensor, Tensor], _LinearLogProbs.apply(hidden_TH, weight_VH, tokens_T, shard))
    return TokenScores(logprobs_T, entropies_T)


class _LinearLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_TH: Tensor, weight_VH: Tensor, tokens_T: Tensor, shard: _Shard
    ) -> tuple[Tensor, Tensor]:
        targets_T = tokens_T - shard.first  # outside [0, valid) the token lives on another rank
        max_T = hidden_TH.new_full((len(hidden_TH),), -torch.inf, dtype=torch.float32)
        # Σ exp(l - max), Σ exp(l - max) l, the logit of the token
        sums_3T = hidden_TH.new_zeros((3, len(hidden_TH)), dtype=torch.float32)
        for tile in _tiles(hidden_TH, shard):
            logits_CB = tile.logits(hidden_TH, weight_VH, shard.scale)
            mine_C, columns_C = tile.targets(targets_T)
            sums_3T[2, tile.rows] += logits_CB.gather(1, columns_C[:, None])[:, 0] * mine_C
            highest_C = torch.maximum(max_T[tile.rows], logits_CB.amax(1))
            sums_3T[:2, tile.rows] *= (max_T[tile.rows] - highest_C).exp()
            max_T[tile.rows] = highest_C
            exponentials_CB = torch.sub(logits_CB, highest_C[:, None], out=tile.second(logits_CB)).exp_()
            sums_3T[0, tile.rows] += exponentials_CB.sum(1)
            sums_3T[1, tile.rows] += torch.linalg.vecdot(exponentials_CB, logits_CB)
        if shard.group is not None:
            global_max_T = max_T.clone()
            dist.all_reduce(global_max_T, op=dist.ReduceOp.MAX, group=shard.group)
            sums_3T[:2] *= (max_T - global_max_T).exp()
            dist.all_reduce(sums_3T, group=shard.group)
            max_T = global_max_T
        normaliser_T = max_T + sums_3T[0].log()
        entropies_T = normaliser_T - sums_3T[1] / sums_3T[0]
        ctx.save_for_backward(hidden_TH, weight_VH, targets_T, normaliser_T, entropies_T)
        ctx.shard = shard
        ctx.set_materialize_grads(False)
        return sums_3T[2] - normaliser_T, entropies_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """With p = softmax(l): d logprob / d l_j = [j = token] - p_j, d entropy / d l_j = -p_j (log p_j + entropy)."""
        on_logprobs_T, on_entropies_T = (None if each is None else each.float() for each in gradients)
        hidden_TH, weight_VH, targets_T, normaliser_T, entropies_T = ctx.saved_tensors
        shard: _Shard = ctx.shard
        hidden_gradient_TH = torch.zeros_like(hidden_TH, dtype=torch.float32)
        weight_gradient_VH = None
        if ctx.needs_input_grad[1]:  # not of a frozen projection
            weight_gradient_VH = torch.zeros_like(weight_VH, dtype=torch.float32)
        if on_logprobs_T is None:
            on_logprobs_T = torch.zeros_like(normaliser_T)
        for tile in _tiles(hidden_TH, shard):
            rows = tile.rows
            # log p, then p, then the gradient of the logits, in place
            gradient_CB = tile.logits(hidden_TH, weight_VH, shard.scale).sub_(normaliser_T[rows, None])
            if on_entropies_T is None:
                gradient_CB.exp_().mul_(-on_logprobs_T[rows, None])
            else:
                factor_CB = torch.add(gradient_CB, entropies_T[rows, None], out=tile.second(gradient_CB))
                factor_CB.mul_(on_entropies_T[rows, None]).add_(on_logprobs_T[rows, None])
                gradient_CB.exp_().mul_(factor_CB.neg_())
            mine_C, columns_C = tile.targets(targets_T)
            gradient_CB.scatter_add_(1, columns_C[:, None], (on_logprobs_T[rows] * mine_C)[:, None])
            gradient_CB = gradient_CB.mul_(shard.scale).to(weight_VH.dtype)
            hidden_gradient_TH[rows] += gradient_CB @ weight_VH[tile.columns]
            if weight_gradient_VH is not None:
                weight_gradient_VH[tile.columns] += gradient_CB.T @ hidden_TH[rows]
        if weight_gradient_VH is not None:
            weight_gradient_VH = weight_gradient_VH.to(weight_VH.dtype)
        return hidden_gradient_TH.to(hidden_TH.dtype), weight_gradient_VH, None, None


@dataclass(frozen=True, slots=True, eq=False)
class _Tile:
    """Some tokens against some of the vocabulary, with memory that all tiles share."""

    rows: slice  # tokens
    columns: slice  # rows of the weight
    memory_2M: Tensor

    def logits(self, hidden_TH: Tensor, weight_VH: Tensor, scale: float) -> Tensor:
        """[C, B] in fp32, in the shared memory."""
        hidden_CH, weight_BH = hidden_TH[self.rows], weight_VH[self.columns]
        shape = (len(hidden_CH), len(weight_BH))
        logits_CB = self.memory_2M[0, : shape[0] * shape[1]].view(shape)
        if weight_VH.dtype == torch.float32:
            torch.mm(hidden_CH, weight_BH.T, out=logits_CB)
        else:
            logits_CB.copy_(hidden_CH @ weight_BH.T)
        return logits_CB if scale == 1.0 else logits_CB.mul_(scale)

    def second(self, like_CB: Tensor) -> Tensor:
        """Other memory of the same shape."""
        return self.memory_2M[1, : like_CB.numel()].view_as(like_CB)

    def targets(self, targets_T: Tensor) -> tuple[Tensor, Tensor]:
        """(1.0 where the token is in this tile, its column or 0)."""
        columns_C = targets_T[self.rows] - self.columns.start
        mine_C = (columns_C >= 0) & (columns_C < self.columns.stop - self.columns.start)
        return mine_C.float(), torch.where(mine_C, columns_C, 0)


def _tiles(hidden_TH: Tensor, shard: _Shard) -> Iterator[_Tile]:
    """All tiles of at most `tile_elements` logits: as many tokens as possible, so that the weight is read seldom."""
    tokens = len(hidden_TH)
    height = min(max(tokens, 1), MAX_TILE_TOKENS, shard.tile_elements)
    width = min(max(shard.tile_elements // height, 1), max(shard.valid, 1))
    memory_2M = hidden_TH.new_empty((2, height * width), dtype=torch.float32)
    for top in range(0, tokens, height):
        for left in range(0, shard.valid, width):
            rows = slice(top, min(top + height, tokens))
            yield _Tile(rows, slice(left, min(left + width, shard.valid)), memory_2M)
