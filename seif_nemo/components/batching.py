"""From variable-length samples to packed micro-batches.

Shape suffixes: S positions of this rank, K segments, T response tokens of all rows, row by row, C those of them that
this rank of the context-parallel group predicts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seif_nemo.parallel.topology import Topology
from seif_nemo.types.rollouts import LogProbs, TokenIds


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One sequence with a value of each kind per response token; the lengths of all response arrays agree."""

    index: int  # in the caller's list
    prompt_ids: TokenIds
    response_ids: TokenIds
    old_logprobs: LogProbs | None = None  # None where only log-probs are wanted
    reference_logprobs: LogProbs | None = None
    advantages: LogProbs | None = None
    weights: LogProbs | None = None  # of the tokens in the policy loss; None: all 1
    old_values: LogProbs | None = None  # these two for a critic only
    returns: LogProbs | None = None
    token_weight: float = 1.0  # of all terms of the loss

    @property
    def num_positions(self) -> int:
        """Tokens that the model reads: the last one predicts nothing."""
        return len(self.prompt_ids) + len(self.response_ids) - 1


@dataclass(frozen=True, slots=True)
class Alignment:
    """What lengths must be multiples of, and which positions of a segment are this rank's.

    With context parallelism a segment is cut into 2 * context chunks, of which rank r has r and its mirror image: a
    causal mask then costs every rank the same (Megatron's and Transformer Engine's order).
    """

    segment: int
    total: int
    context: int
    context_rank: int

    @classmethod
    def of(cls, topology: Topology, row_multiple: int = 1) -> "Alignment":
        """`row_multiple`: what the tokens of each rank must be a multiple of besides."""
        segment = 2 * topology.context if topology.context > 1 else 1
        shards = topology.tensor if topology.sequence else 1
        return cls(
            segment=segment,
            total=math.lcm(segment, topology.context * shards * row_multiple),
            context=topology.context,
            context_rank=topology.context_rank,
        )

    def padded(self, length: int) -> int:
        return -(-length // self.segment) * self.segment

    def local_positions(self, length: int) -> NDArray[np.int64]:
        """Positions, inside a segment of a padded length, that this rank has, in the order in which it has them."""
        if self.context == 1:
            return np.arange(length)
        chunk = length // (2 * self.context)
        first, second = self.context_rank, 2 * self.context - 1 - self.context_rank
        return np.concatenate([np.arange(chunk) + first * chunk, np.arange(chunk) + second * chunk])


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """Rows one behind the other in one sequence, each a segment that sees only itself."""

    rows: tuple[Row, ...]  # empty for a filler, which has one segment of padding and one token of weight 0
    input_ids_1S: Tensor
    position_ids_1S: Tensor  # inside the row
    sequences_1S: Tensor  # the segment, from 1, whose row has a token there; 0 for padding
    boundaries_K: Tensor  # [segments + 1], int32: where the segments begin and end, over all context-parallel ranks
    longest: int  # segment
    selected_C: Tensor  # index into this rank's positions: where the token before each response token stands
    places_C: Tensor  # which of the T tokens each of them is
    tokens_T: Tensor
    mask_T: Tensor
    old_logprobs_T: Tensor
    reference_logprobs_T: Tensor
    advantages_T: Tensor
    old_values_T: Tensor
    returns_T: Tensor
    rows_T: Tensor  # index into `rows` of each token
    mean_weights_T: Tensor  # `token_weight` of each token's row; 0 for a filler
    policy_weights_T: Tensor  # that times `weights`


def split_mini_batches(groups: Sequence[int], mini_batches: int, *, seed: int) -> list[list[int]]:
    """Indices of the samples in `mini_batches` parts of whole groups; `groups` names the group of each sample.

    The groups come in a seeded random order; their number per part differs by one at most. Empty parts (more
    mini-batches than groups) are left out.
    """
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    names = list(members)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(names))
    parts = [part for part in np.array_split(order, mini_batches) if len(part)]
    return [[index for place in part for index in members[names[place]]] for part in parts]


def make_micro_batch(rows: Sequence[Row], *, pad_id: int, alignment: Alignment, device: torch.device) -> MicroBatch:
    """Pack rows in their order. What alignment adds is padding behind a row, and one more segment of padding at last.

    The last token of a row is never read: it predicts nothing, and no row sees the next one's first.
    """
    num_tokens = sum(len(row.response_ids) for row in rows)
    is_empty = num_tokens == 0  # one token of weight 0, so that every rank runs the same passes
    segments = [alignment.padded(max(row.num_positions, 1)) for row in rows]
    rest = -sum(segments) % alignment.total or (0 if rows else alignment.total)
    if rest:
        segments.append(rest)
    ids, positions, sequences, selected, places = [], [], [], [], []
    start = token = 0  # of the segment among this rank's positions; of the row among the response tokens
    padded_rows = [*rows, *[None] * (len(segments) - len(rows))]
    for number, (row, length) in enumerate(zip(padded_rows, segments, strict=True), start=1):
        own = alignment.local_positions(length)
        whole = np.full(length, pad_id, dtype=np.int64)
        if row is not None:
            assert len(row.prompt_ids) > 0
            whole[: row.num_positions] = np.concatenate([row.prompt_ids, row.response_ids])[:-1]
            first = len(row.prompt_ids) - 1
            predicts = (own >= first) & (own < first + len(row.response_ids))
            selected.append(start + np.flatnonzero(predicts))
            places.append(token + own[predicts] - first)
            token += len(row.response_ids)
        ids.append(whole[own])
        positions.append(own)
        sequences.append(np.where(own < (0 if row is None else row.num_positions), number, 0))
        start += len(own)
    if is_empty:
        selected, places = [np.zeros(1, dtype=np.int64)], [np.zeros(1, dtype=np.int64)]

    def to_tensor(values: Sequence[np.ndarray], dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(np.concatenate(values)).to(device=device, dtype=dtype)

    def per_token(values: Sequence[np.ndarray | float], dtype: torch.dtype = torch.float32) -> Tensor:
        lengths = [len(row.response_ids) for row in rows]
        full = [np.broadcast_to(value, length) for length, value in zip(lengths, values, strict=True)]
        return to_tensor([np.zeros(1)] if is_empty else full, dtype)

    def or_default(values: Sequence[LogProbs | None], default: float = 0.0) -> Tensor:
        return per_token([default if value is None else value for value in values])

    mean_weights_T = per_token([row.token_weight for row in rows])
    return MicroBatch(
        rows=tuple(rows),
        input_ids_1S=to_tensor(ids, torch.int64)[None],
        position_ids_1S=to_tensor(positions, torch.int64)[None],
        sequences_1S=to_tensor(sequences, torch.int64)[None],
        boundaries_K=torch.tensor(np.cumsum([0, *segments]), dtype=torch.int32, device=device),
        longest=max(segments),
        selected_C=to_tensor(selected, torch.int64),
        places_C=to_tensor(places, torch.int64),
        tokens_T=per_token([row.response_ids for row in rows], torch.int64),
        mask_T=per_token([1.0 for _ in rows]),
        old_logprobs_T=or_default([row.old_logprobs for row in rows]),
        reference_logprobs_T=or_default([row.reference_logprobs for row in rows]),
        advantages_T=or_default([row.advantages for row in rows]),
        old_values_T=or_default([row.old_values for row in rows]),
        returns_T=or_default([row.returns for row in rows]),
        rows_T=per_token([float(b) for b in range(len(rows))], torch.int64),
        mean_weights_T=mean_weights_T,
        policy_weights_T=mean_weights_T * or_default([row.weights for row in rows], 1.0),
    )
