import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seif_nemo.generation.sharing import Answer, deal, pack, unpack
from seif_nemo.types.rollouts import FinishReason


def prompt(length: int, fill: int = 1) -> np.ndarray:
    return np.full(length, fill, dtype=np.int64)


def test_same_prompts_stay_together_and_neighbours() -> None:
    requests = [prompt(5, 1), prompt(5, 2), prompt(5, 1), prompt(5, 2)]
    assert deal(requests, 2, tokens_per_response=10) == [[0, 2], [1, 3]]
    assert deal(requests, 1, tokens_per_response=10) == [[0, 2, 1, 3]]


def test_a_group_is_split_where_balance_asks_for_it() -> None:
    assert sorted(map(len, deal([prompt(4)] * 7, 3, tokens_per_response=10))) == [2, 2, 3]
    three_pairs = [prompt(4, fill) for fill in (1, 1, 2, 2, 3, 3)]
    assert [len(share) for share in deal(three_pairs, 2, tokens_per_response=10)] == [3, 3]


def test_a_share_begins_with_its_longest_prompts() -> None:
    assert deal([prompt(2), prompt(9, 2), prompt(4, 3)], 1, tokens_per_response=1) == [[1, 2, 0]]


@settings(deadline=None, max_examples=200)
@given(
    kinds=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3)), max_size=40),
    num_shares=st.integers(1, 6),
    tokens_per_response=st.integers(1, 50),
)
def test_shares_are_a_balanced_partition(
    kinds: list[tuple[int, int]], num_shares: int, tokens_per_response: int
) -> None:
    requests = [prompt(length, fill) for length, fill in kinds]
    shares = deal(requests, num_shares, tokens_per_response=tokens_per_response)
    assert len(shares) == num_shares
    assert sorted(index for share in shares for index in share) == list(range(len(requests)))
    loads = [sum(len(requests[index]) + tokens_per_response for index in share) for share in shares]
    heaviest = shares[loads.index(max(loads))]
    if heaviest:  # no single request could still move to the lightest share and narrow the gap
        cheapest = min(len(requests[index]) + tokens_per_response for index in heaviest)
        assert max(loads) - min(loads) <= cheapest


answers = st.builds(
    lambda tokens, text, reason: Answer(
        response_ids=np.array([token for token, _ in tokens], dtype=np.int64),
        logprobs=np.array([logprob for _, logprob in tokens], dtype=np.float32),
        text=text,
        finish_reason=reason,
    ),
    st.lists(st.tuples(st.integers(0, 2**31 - 1), st.floats(width=32, allow_nan=False)), max_size=6),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(FinishReason),
)


@settings(deadline=None)
@given(sent=st.lists(answers, max_size=5), padding=st.integers(0, 9))
def test_unpack_gives_back_what_was_packed(sent: list[Answer], padding: int) -> None:
    packed = pack(sent)
    assert packed.dtype == np.uint8
    received = unpack(np.concatenate([packed, np.full(padding, 255, dtype=np.uint8)]), len(sent))
    assert len(received) == len(sent)
    for a, b in zip(sent, received, strict=True):
        assert a.response_ids.tolist() == b.response_ids.tolist()
        assert a.logprobs.tobytes() == b.logprobs.tobytes()
        assert (a.text, a.finish_reason) == (b.text, b.finish_reason)
        assert (b.response_ids.dtype, b.logprobs.dtype) == (np.int64, np.float32)


def test_a_nan_logprob_survives_packing() -> None:
    """A replica's broken model must show on every rank."""
    answer = Answer(prompt(1), np.array([np.nan], dtype=np.float32), "", FinishReason.STOP)
    assert np.isnan(unpack(pack([answer]), 1)[0].logprobs[0])


def test_a_payload_that_is_cut_is_an_error() -> None:
    packed = pack([Answer(prompt(3), np.zeros(3, dtype=np.float32), "abc", FinishReason.LENGTH)])
    with pytest.raises(ValueError):
        unpack(packed[:-8], 1)
