import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seif_nemo.components.batching import Alignment, Row, make_micro_batch, split_mini_batches
from tests.unit.topologies import make_topology

CPU = torch.device("cpu")


def row(index: int, prompt: list[int], response: list[int], advantage: float = 0.0) -> Row:
    count = len(response)
    return Row(
        index,
        np.array(prompt),
        np.array(response, dtype=np.int64),
        old_logprobs=-np.arange(count, dtype=np.float32) - index,
        reference_logprobs=-np.arange(count, dtype=np.float32) - 10,
        advantages=np.full(count, advantage, dtype=np.float32),
    )


def aligned(*, context: int = 1, rank: int = 0, shards: int = 1) -> Alignment:
    segment = 2 * context if context > 1 else 1
    return Alignment(segment=segment, total=segment * shards, context=context, context_rank=rank)


def test_the_tokens_of_every_rank_are_a_multiple_of_what_is_asked_for() -> None:
    assert Alignment.of(make_topology(), 16).total == 16
    assert Alignment.of(make_topology(tensor=4), 16).total == 16
    assert Alignment.of(make_topology(tensor=4, sequence=True), 16).total == 64
    assert Alignment.of(make_topology(context=3), 16).total == 48
    assert Alignment.of(make_topology(context=3)).total == 6


def test_a_micro_batch_by_hand() -> None:
    rows = [row(4, [10, 11, 12], [13, 14], 0.5), row(7, [20], [21, 22, 23], -1.0)]
    batch = make_micro_batch(rows, pad_id=9, alignment=aligned(), device=CPU)
    # The last token of a row is never read: it predicts nothing.
    assert batch.input_ids_1S.tolist() == [[10, 11, 12, 13, 20, 21, 22]]
    assert batch.position_ids_1S.tolist() == [[0, 1, 2, 3, 0, 1, 2]]
    assert batch.sequences_1S.tolist() == [[1, 1, 1, 1, 2, 2, 2]]
    assert (batch.boundaries_K.tolist(), batch.longest) == ([0, 4, 7], 4)
    # Token 13 is predicted by the 12 before it, 14 by 13; 21, 22, 23 by 20, 21, 22.
    assert batch.selected_C.tolist() == [2, 3, 4, 5, 6]
    assert batch.places_C.tolist() == [0, 1, 2, 3, 4]
    assert batch.tokens_T.tolist() == [13, 14, 21, 22, 23]
    assert batch.mask_T.tolist() == [1.0] * 5
    assert batch.old_logprobs_T.tolist() == [-4, -5, -7, -8, -9]
    assert batch.reference_logprobs_T.tolist() == [-10, -11, -10, -11, -12]
    assert batch.advantages_T.tolist() == [0.5, 0.5, -1, -1, -1]
    assert batch.rows_T.tolist() == [0, 0, 1, 1, 1]
    assert batch.mean_weights_T.tolist() == batch.policy_weights_T.tolist() == [1.0] * 5
    assert batch.input_ids_1S.dtype == batch.selected_C.dtype == batch.tokens_T.dtype == torch.int64


def test_two_context_parallel_ranks_by_hand() -> None:
    rows = [row(0, [1, 2, 3], [4, 5, 6, 7]), row(1, [8], [9])]  # 6 and 1 positions: segments of 8 and 4
    first, second = (
        make_micro_batch(rows, pad_id=0, alignment=aligned(context=2, rank=rank), device=CPU) for rank in (0, 1)
    )
    assert first.boundaries_K.tolist() == second.boundaries_K.tolist() == [0, 8, 12]
    # Of four chunks rank 0 has the outer two, rank 1 the inner two.
    assert first.position_ids_1S.tolist() == [[0, 1, 6, 7, 0, 3]]
    assert first.input_ids_1S.tolist() == [[1, 2, 0, 0, 8, 0]]
    assert first.sequences_1S.tolist() == [[1, 1, 0, 0, 2, 0]]
    assert second.sequences_1S.tolist() == [[1, 1, 1, 1, 0, 0]]
    assert second.position_ids_1S.tolist() == [[2, 3, 4, 5, 1, 2]]
    assert second.input_ids_1S.tolist() == [[3, 4, 5, 6, 0, 0]]
    assert (first.selected_C.tolist(), first.places_C.tolist()) == ([4], [4])
    assert (second.selected_C.tolist(), second.places_C.tolist()) == ([0, 1, 2, 3], [0, 1, 2, 3])
    assert first.tokens_T.tolist() == second.tokens_T.tolist() == [4, 5, 6, 7, 9]


ROWS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=6)


@given(ROWS, st.integers(1, 4), st.integers(1, 3))
def test_every_token_is_predicted_once_by_the_token_before_it(
    shapes: list[tuple[int, int]], context: int, shards: int
) -> None:
    rows, start = [], 100
    for index, (prompt, response) in enumerate(shapes):
        ids = list(range(start, start + prompt + response))
        rows.append(row(index, ids[:prompt], ids[prompt:]))
        start += prompt + response
    predicted: dict[int, int] = {}
    for rank in range(context):
        alignment = aligned(context=context, rank=rank, shards=shards)
        batch = make_micro_batch(rows, pad_id=0, alignment=alignment, device=CPU)
        assert len(batch.input_ids_1S[0]) * context == batch.boundaries_K[-1]
        assert batch.boundaries_K[-1] % (context * shards) == 0
        if any(response for _, response in shapes):
            for place, before in zip(
                batch.places_C.tolist(), batch.input_ids_1S[0][batch.selected_C].tolist(), strict=True
            ):
                assert place not in predicted
                predicted[place] = before
                assert batch.tokens_T[place] == before + 1
    assert len(predicted) == sum(response for _, response in shapes)


@pytest.mark.parametrize("context", [1, 2])
def test_a_filler_weighs_nothing(context: int) -> None:
    for rows in ([], [row(0, [1, 2], [])]):
        batch = make_micro_batch(rows, pad_id=3, alignment=aligned(context=context, shards=2), device=CPU)
        assert batch.boundaries_K[-1] % (2 * context) == 0
        assert batch.mask_T.tolist() == batch.mean_weights_T.tolist() == batch.policy_weights_T.tolist() == [0.0]
        assert batch.selected_C.tolist() == batch.places_C.tolist() == [0]
        assert len(batch.tokens_T) == len(batch.old_logprobs_T) == len(batch.advantages_T) == 1


@given(st.integers(0, 50), st.integers(1, 8), st.integers(0, 5))
def test_mini_batches_are_a_partition(num_samples: int, mini_batches: int, seed: int) -> None:
    parts = split_mini_batches(range(num_samples), mini_batches, seed=seed)
    assert sorted(index for part in parts for index in part) == list(range(num_samples))
    assert len(parts) == min(mini_batches, num_samples)
    assert not parts or max(map(len, parts)) - min(map(len, parts)) <= 1
    assert parts == split_mini_batches(range(num_samples), mini_batches, seed=seed)


def test_a_group_stays_together() -> None:
    groups = [7, 7, 3, 3, 3, 9, 9, 1]
    parts = split_mini_batches(groups, 2, seed=0)
    assert sorted(sorted({groups[index] for index in part}) for part in parts) in (
        [[1, 3], [7, 9]],
        [[1, 7], [3, 9]],
        [[1, 9], [3, 7]],
    )
    assert sorted(index for part in parts for index in part) == list(range(8))
    assert len(split_mini_batches(groups, 9, seed=0)) == 4


def test_the_seed_shuffles() -> None:
    orders = {tuple(split_mini_batches(range(12), 1, seed=seed)[0]) for seed in range(20)}
    assert len(orders) == 20
