"""From variable-length samples to padded micro-batches, the same plan on every rank.

Shape suffixes: B rows, S padded positions, T selected tokens (the response tokens of all rows, row by row).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

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
    token_weight: float = 1.0  # of all terms of the loss

    @property
    def num_positions(self) -> int:
        """Tokens that the model reads: the last one predicts nothing."""
        return len(self.prompt_ids) + len(self.response_ids) - 1


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """Rows padded on the right. `selected` says where the token that predicts each response token stands."""

    rows: tuple[Row, ...]  # empty for a filler, which has one row of padding and one token of weight 0
    input_ids_BS: Tensor
    position_ids_BS: Tensor
    selected_T: Tensor  # s * B + b: the index into hidden states of shape [S, B, ...], flattened
    tokens_T: Tensor
    mask_T: Tensor
    old_logprobs_T: Tensor
    reference_logprobs_T: Tensor
    advantages_T: Tensor
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


def deal(lengths: Sequence[int], *, max_rows: int, ranks: int, rank: int) -> list[list[int]]:
    """Which samples form this rank's micro-batches, in order.

    Samples are sorted by length (ties by index) and cut into micro-batches of at most `max_rows` rows whose sizes
    differ by one at most; neighbours in length go to different ranks. Every rank gets the same number of micro-batches;
    some are empty where there are fewer samples than that.
    """
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    per_rank = -(-len(order) // (max_rows * ranks))
    parts = np.array_split(np.array(order, dtype=np.int64), max(per_rank * ranks, 1))
    return [part.tolist() for part in parts[rank::ranks]] if order else []


def make_micro_batch(rows: Sequence[Row], *, pad_id: int, multiple_of: int, device: torch.device) -> MicroBatch:
    """Pad rows to the longest, rounded up to a multiple (of the tensor-parallel size for sequence parallelism)."""
    is_filler = not rows
    longest = max((row.num_positions for row in rows), default=1)
    positions = -(-max(longest, 1) // multiple_of) * multiple_of
    num_rows = max(len(rows), 1)
    input_ids = np.full((num_rows, positions), pad_id, dtype=np.int64)
    selected: list[np.ndarray] = []
    for b, row in enumerate(rows):
        assert len(row.prompt_ids) > 0
        input_ids[b, : row.num_positions] = np.concatenate([row.prompt_ids, row.response_ids])[:-1]
        first = len(row.prompt_ids) - 1
        selected.append(np.arange(first, first + len(row.response_ids)) * num_rows + b)
    num_tokens = sum(len(row.response_ids) for row in rows)
    is_empty = is_filler or num_tokens == 0  # one token of weight 0, so that every rank runs the same passes

    def to_tensor(values: Sequence[np.ndarray], dtype: torch.dtype) -> Tensor:
        joined = np.zeros(1) if is_empty else np.concatenate(values)
        return torch.from_numpy(joined).to(device=device, dtype=dtype)

    def per_token(values: Sequence[np.ndarray | None], default: float = 0.0) -> Tensor:
        lengths = [len(row.response_ids) for row in rows]
        known = [np.full(n, default) if v is None else v for n, v in zip(lengths, values, strict=True)]
        return to_tensor(known, torch.float32)

    mean_weights_T = to_tensor([np.full(len(row.response_ids), row.token_weight) for row in rows], torch.float32)
    return MicroBatch(
        rows=tuple(rows),
        input_ids_BS=torch.from_numpy(input_ids).to(device),
        position_ids_BS=torch.arange(positions, device=device).expand(num_rows, -1),
        selected_T=to_tensor(selected, torch.int64),
        tokens_T=to_tensor([row.response_ids for row in rows], torch.int64),
        mask_T=torch.full((max(num_tokens, 1),), 0.0 if is_empty else 1.0, device=device),
        old_logprobs_T=per_token([row.old_logprobs for row in rows]),
        reference_logprobs_T=per_token([row.reference_logprobs for row in rows]),
        advantages_T=per_token([row.advantages for row in rows]),
        rows_T=to_tensor([np.full(len(row.response_ids), b) for b, row in enumerate(rows)], torch.int64),
        mean_weights_T=mean_weights_T,
        policy_weights_T=mean_weights_T * per_token([row.weights for row in rows], 1.0),
    )
