"""Packing and balancing."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seif_nemo.data.packing import first_fit_decreasing, plan_packing

REFERENCE = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "seif_reference"


def test_first_fit_decreasing_by_hand() -> None:
    # 7 | 6 | 5 beside nothing, 4 beside 6, 3 beside 7, 2 beside 5
    assert first_fit_decreasing([3, 7, 2, 6, 5, 4], 10) == [[1, 0], [3, 5], [4, 2]]
    assert first_fit_decreasing([5, 5, 5], 10) == [[0, 1], [2]]
    assert first_fit_decreasing([12, 1], 10) == [[0], [1]]  # beyond the budget: alone
    assert first_fit_decreasing([], 10) == []


def test_a_plan_by_hand() -> None:
    # Costs are squares: 100 on one rank, 64 + 36 on the other.
    plan = plan_packing([10, 8, 6], [100, 64, 36], budget=10, ranks=2)
    assert plan.ranks == (((0,), ()), ((1,), (2,)))
    assert plan.imbalance == 0
    assert plan.fill == 24 / 40
    # As many tokens in two bins, but one is dearer.
    assert plan_packing([4, 4, 4, 4], [4, 1, 1, 1], budget=8, ranks=2).imbalance == pytest.approx(5 / 3.5 - 1)


LENGTHS = st.lists(st.integers(1, 60), max_size=40)


@given(LENGTHS, st.integers(40, 90), st.integers(1, 5), st.integers(1, 3))
def test_every_sequence_is_in_one_micro_batch_and_all_ranks_have_as_many(
    lengths: list[int], budget: int, ranks: int, multiple_of: int
) -> None:
    plan = plan_packing(
        lengths, [length + length**2 / 50 for length in lengths], budget=budget, ranks=ranks, multiple_of=multiple_of
    )
    bins = [part for share in plan.ranks for part in share]
    assert sorted(index for part in bins for index in part) == list(range(len(lengths)))
    assert len(plan.ranks) == ranks
    (per_rank,) = {len(share) for share in plan.ranks}
    assert per_rank % multiple_of == 0
    fewest = -(-len(first_fit_decreasing(lengths, budget)) // ranks)
    assert per_rank == -(-fewest // multiple_of) * multiple_of
    assert all(len(part) == 1 or sum(lengths[index] for index in part) <= budget for part in bins)
    assert 0 < plan.fill <= 1
    assert plan.imbalance >= 0


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the reference data are not here")
@pytest.mark.parametrize("num_prompts", [384, 96], ids=["step", "mini-batch"])
@pytest.mark.parametrize("budget", [4096, 8192])
def test_reference_lengths_fill_and_balance(num_prompts: int, budget: int) -> None:
    """Prompts of the release (four characters a token), five seeded response lengths each, a 7B model's costs."""
    prompts = pq.read_table(REFERENCE / "qwen7b_q_T1.parquet", columns=["prompt"])["prompt"].to_pylist()
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(prompts), num_prompts).repeat(5)
    responses = np.clip(rng.lognormal(np.log(400), 0.6, len(chosen)), 8, 4096 - 1500).astype(int)
    lengths = [len(prompts[i]) // 4 + response for i, response in zip(chosen, responses.tolist(), strict=True)]
    costs = [1.4e10 * length + 2.0 * 28 * 3584 * length**2 for length in lengths]
    plan = plan_packing(lengths, costs, budget=budget, ranks=8)
    bins = first_fit_decreasing(lengths, budget)
    assert sum(lengths) / (len(bins) * budget) >= 0.97
    assert plan.fill >= 0.97
    assert plan.imbalance <= 0.02
