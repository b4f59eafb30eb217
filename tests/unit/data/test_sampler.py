from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seif_nemo.data.sampler import PhaseSampler, Pick, num_steps
from seif_nemo.data.streams import derive_seed, permutation


@pytest.mark.parametrize(
    ("n", "epochs", "per_step", "max_steps", "expected"),
    [
        (960, 1, 24, None, 40),
        (5119, 1, 384, None, 14),  # 13.3 batches
        (5119, 3, 384, None, 40),  # 39.99 batches: the epochs share one stream
        (5, 1, 24, None, 1),  # fewer items than a batch
        (960, 1, 24, 10, 10),
        (960, 1, 24, 100, 40),
        (960, 0, 24, None, 0),
        (0, 1, 24, None, 0),
    ],
)
def test_num_steps(n: int, epochs: int, per_step: int, max_steps: int | None, expected: int):
    assert num_steps(n, epochs=epochs, prompts_per_step=per_step, max_steps=max_steps) == expected


def test_steps_walk_the_permutation_and_run_on_into_the_next():
    sampler = PhaseSampler(num_items=5, prompts_per_step=2, seed=9, epochs=1)
    first, second = (permutation(5, derive_seed(9, "fresh", epoch)) for epoch in (0, 1))
    assert sampler.num_steps == 3
    assert [[pick.index for pick in sampler.picks(s)] for s in range(3)] == [
        first[:2],
        first[2:4],
        [first[4], second[0]],
    ]


@given(
    num_items=st.integers(1, 40),
    per_step=st.integers(1, 30),
    epochs=st.integers(1, 4),
    replay_items=st.integers(0, 20),
    share=st.floats(0, 0.99),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_item_is_seen_in_every_epoch(
    num_items: int, per_step: int, epochs: int, replay_items: int, share: float, seed: int
):
    sampler = PhaseSampler(
        num_items=num_items,
        prompts_per_step=per_step,
        seed=seed,
        epochs=epochs,
        num_replay_items=replay_items,
        replay_share=share,
    )
    batches = [sampler.picks(s) for s in range(sampler.num_steps)]
    assert {len(batch) for batch in batches} == {per_step}
    fresh = Counter(pick.index for batch in batches for pick in batch if not pick.replayed)
    assert set(fresh) == set(range(num_items))
    assert min(fresh.values()) >= epochs
    # one step less would not have been enough
    assert sum(fresh.values()) - sampler.fresh_per_step < epochs * num_items
    replayed = [pick.index for batch in batches for pick in batch if pick.replayed]
    assert all(0 <= index < replay_items for index in replayed)
    assert sampler.picks(0) == batches[0]


def test_replay_share_of_every_batch_comes_from_earlier_rounds():
    sampler = PhaseSampler(num_items=100, prompts_per_step=24, seed=1, epochs=1, num_replay_items=50, replay_share=0.34)
    assert (sampler.replayed_per_step, sampler.fresh_per_step) == (8, 16)  # 0.34 × 24 = 8.16
    assert sampler.num_steps == 7  # 100 / 16 = 6.25
    assert [pick.replayed for pick in sampler.picks(3)] == [False] * 16 + [True] * 8
    order = permutation(50, derive_seed(1, "replay", 0))
    assert sampler.picks(1)[16:] == tuple(Pick(i, replayed=True) for i in order[8:16])


def test_without_earlier_items_the_batch_is_all_fresh():
    sampler = PhaseSampler(num_items=100, prompts_per_step=10, seed=1, epochs=1, replay_share=0.5)
    assert not any(pick.replayed for pick in sampler.picks(0))
    assert sampler.num_steps == 10


def test_a_phase_without_items_is_refused():
    with pytest.raises(ValueError, match="no items"):
        PhaseSampler(num_items=0, prompts_per_step=2, seed=0, epochs=1)
