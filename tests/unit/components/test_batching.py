import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from seif_nemo.components.batching import Row, deal, make_micro_batch, split_mini_batches

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


def test_a_micro_batch_by_hand() -> None:
    batch = make_micro_batch(
        [row(4, [10, 11, 12], [13, 14], 0.5), row(7, [20], [21, 22, 23], -1.0)], pad_id=9, multiple_of=1, device=CPU
    )
    # The last token of a row is never read: it predicts nothing.
    assert batch.input_ids_BS.tolist() == [[10, 11, 12, 13], [20, 21, 22, 9]]
    assert batch.position_ids_BS.tolist() == [[0, 1, 2, 3]] * 2
    # Token 13 is predicted at position 2 of row 0, 14 at 3; 21, 22, 23 at positions 0, 1, 2 of row 1: s * 2 + b.
    assert batch.selected_T.tolist() == [4, 6, 1, 3, 5]
    assert batch.tokens_T.tolist() == [13, 14, 21, 22, 23]
    assert batch.mask_T.tolist() == [1.0] * 5
    assert batch.old_logprobs_T.tolist() == [-4, -5, -7, -8, -9]
    assert batch.reference_logprobs_T.tolist() == [-10, -11, -10, -11, -12]
    assert batch.advantages_T.tolist() == [0.5, 0.5, -1, -1, -1]
    assert batch.rows_T.tolist() == [0, 0, 1, 1, 1]
    assert batch.mean_weights_T.tolist() == batch.policy_weights_T.tolist() == [1.0] * 5
    assert batch.input_ids_BS.dtype == batch.selected_T.dtype == batch.tokens_T.dtype == torch.int64


def test_selected_positions_read_the_token_before() -> None:
    rows = [row(0, [1, 2], [3, 4, 5]), row(1, [6], [7]), row(2, [8, 9, 10], [])]
    batch = make_micro_batch(rows, pad_id=0, multiple_of=4, device=CPU)
    assert batch.input_ids_BS.shape == (3, 4)
    read = batch.input_ids_BS.T.flatten()[batch.selected_T].tolist()  # [S, B] flattened, as hidden states are
    assert read == [2, 3, 4, 6]
    assert batch.tokens_T.tolist() == [3, 4, 5, 7]


def test_a_filler_weighs_nothing() -> None:
    for rows in ([], [row(0, [1, 2], [])]):
        batch = make_micro_batch(rows, pad_id=3, multiple_of=2, device=CPU)
        assert batch.input_ids_BS.shape == (1, 2)
        assert batch.mask_T.tolist() == [0.0]
        assert batch.selected_T.tolist() == [0]
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


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 7), st.integers(1, 4))
def test_every_sample_is_dealt_once_and_every_rank_gets_as_many_parts(
    lengths: list[int], max_rows: int, ranks: int
) -> None:
    dealt = [deal(lengths, max_rows=max_rows, ranks=ranks, rank=rank) for rank in range(ranks)]
    parts = [part for rank in dealt for part in rank]
    assert sorted(index for part in parts for index in part) == list(range(len(lengths)))
    assert len({len(rank) for rank in dealt}) == 1
    assert all(len(part) <= max_rows for part in parts)
    assert len(dealt[0]) == -(-len(lengths) // (max_rows * ranks))
    if parts:
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_neighbours_in_length_share_a_micro_batch() -> None:
    lengths = [9, 1, 5, 2, 8, 6]
    assert deal(lengths, max_rows=2, ranks=1, rank=0) == [[1, 3], [2, 5], [4, 0]]
    assert deal(lengths, max_rows=2, ranks=3, rank=1) == [[2, 5]]
