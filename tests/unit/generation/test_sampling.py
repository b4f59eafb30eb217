import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seif_nemo.generation.sampling import (
    check_sampling,
    doubling_sums,
    draw,
    exponentials,
    kept_tokens,
    noise_keys,
    seed_keys,
)

MASK32 = (1 << 32) - 1


def keys_of(seeds: list[int], position: int = 0) -> torch.Tensor:
    return torch.from_numpy(noise_keys(seed_keys(seeds), np.full(len(seeds), position)))


def test_noise_keys_are_the_published_splitmix64_stream() -> None:
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    keys = noise_keys(np.full(4, 1234567, dtype=np.uint64), np.arange(4))
    assert keys.view(np.uint64).tolist() == published


def test_seed_keys_take_any_integer_and_keep_close_seeds_apart() -> None:
    keys = seed_keys([0, 1, 2, -1, 2**64 - 1, 2**64])
    assert keys[3] == keys[4]  # -1 modulo 2**64
    assert keys[0] == keys[5]
    assert len(set(keys.tolist())) == 4


def lowbias32(x: int) -> int:
    x ^= x >> 16
    x = x * 0x7FEB352D & MASK32
    x ^= x >> 15
    x = x * 0x846CA68B & MASK32
    return x ^ x >> 16


def exponential_by_hand(key: int, token: int) -> float:
    low, high = key & MASK32, key >> 32 & MASK32
    word = lowbias32(lowbias32(token * 0x9E3779B1 & MASK32 ^ low) + high & MASK32)
    return -math.log1p(-((word & (1 << 23) - 1) + 0.5) / 2**23)


@settings(deadline=None, max_examples=100)
@given(key=st.integers(-(2**63), 2**63 - 1), tokens=st.lists(st.integers(0, 4000), min_size=1, max_size=5))
def test_exponentials_are_the_hash_in_plain_integers(key: int, tokens: list[int]) -> None:
    row = exponentials(torch.tensor([key]), 4001)[0]
    assert row[tokens].tolist() == pytest.approx([exponential_by_hand(key, token) for token in tokens], rel=1e-6)


def test_exponentials_have_their_distribution_in_every_direction() -> None:
    """Over tokens of one key, over positions of one seed and over seeds: uniform, and neighbours are independent."""
    seed = seed_keys([7])
    size = 8192
    directions = [
        exponentials(torch.from_numpy(noise_keys(seed, np.array([0]))), size)[0],
        exponentials(torch.from_numpy(noise_keys(np.repeat(seed, size), np.arange(size))), 3)[:, 2],
        exponentials(keys_of(list(range(size))), 3)[:, 1],
    ]
    for values in directions:
        uniform = np.exp(-values.double().numpy())
        cells = np.histogram2d(uniform[:-1], uniform[1:], bins=8, range=[[0, 1], [0, 1]])[0]
        expected = (size - 1) / 64
        assert ((cells - expected) ** 2 / expected).sum() < 103.4  # chi-square, 63 degrees of freedom, p = 0.001
        assert (values > 0).all()
        assert values.isfinite().all()


def test_a_row_does_not_depend_on_its_batch() -> None:
    torch.manual_seed(0)
    logits = torch.randn(7, 50)
    keys = torch.from_numpy(noise_keys(seed_keys([5, 6, 7, 8, 9, 10, 11]), np.array([3, 0, 9, 2, 2, 7, 1])))
    together = draw(logits, keys, temperature=0.7, top_p=0.9, top_k=20)
    for row in (0, 3, 6):
        alone = draw(logits[row : row + 1], keys[row : row + 1], temperature=0.7, top_p=0.9, top_k=20)
        assert alone.token_B.item() == together.token_B[row].item()
        assert alone.logprob_B.item() == together.logprob_B[row].item()


def test_rounding_of_the_logits_changes_next_to_nothing() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 400).expand(20000, -1)
    keys = keys_of(list(range(20000)))
    exact = draw(logits, keys, temperature=1.0, top_p=1.0, top_k=0)
    rounded = draw(logits + 1e-6 * torch.randn(20000, 400), keys, temperature=1.0, top_p=1.0, top_k=0)
    assert (exact.token_B != rounded.token_B).sum() <= 1  # about 0.02 expected


def test_tokens_of_probability_zero_are_never_drawn() -> None:
    logits = torch.tensor([[0.25, 0.0, 0.5, 0.0, 0.25, 0.0]]).log().expand(3000, -1)
    drawn = draw(logits, keys_of(list(range(3000))), temperature=1.0, top_p=1.0, top_k=0)
    assert set(drawn.token_B.tolist()) == {0, 2, 4}
    expected = torch.where(drawn.token_B == 2, 0.5, 0.25).log()
    torch.testing.assert_close(drawn.logprob_B, expected)


def test_logprob_is_of_the_whole_distribution_after_temperature() -> None:
    # exp(logit / 2) is 1, 2, 3, 4: probabilities .1, .2, .3, .4. Top-k leaves the last two.
    logits = 2 * torch.tensor([[1.0, 2.0, 3.0, 4.0]]).log().expand(200, -1)
    drawn = draw(logits, keys_of(list(range(200))), temperature=2.0, top_p=1.0, top_k=2)
    assert set(drawn.token_B.tolist()) == {2, 3}
    torch.testing.assert_close(drawn.logprob_B, torch.where(drawn.token_B == 2, 0.3, 0.4).log())


def test_greedy_takes_the_highest_and_reports_temperature_one() -> None:
    logits = torch.tensor([[1.0, 6.0, 3.0], [2.0, 0.0, 0.0]]).log()
    drawn = draw(logits, keys_of([1, 2]), temperature=0.0, top_p=1.0, top_k=0)
    assert drawn.token_B.tolist() == [1, 0]
    assert drawn.logprob_B.tolist() == pytest.approx([math.log(0.6), 0.0])


def test_bfloat16_logits_are_summed_in_float32() -> None:
    drawn = draw(torch.zeros(1, 3000, dtype=torch.bfloat16), keys_of([1]), temperature=1.0, top_p=1.0, top_k=0)
    assert drawn.logprob_B.item() == pytest.approx(-math.log(3000), rel=1e-6)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_logit_that_is_not_finite_shows_in_the_logprob(temperature: float) -> None:
    logits = torch.tensor([[0.0, math.nan, 1.0], [0.0, math.inf, 1.0]])
    drawn = draw(logits, keys_of([1, 2]), temperature=temperature, top_p=1.0, top_k=0)
    assert all(0 <= token < 3 for token in drawn.token_B.tolist())
    assert drawn.logprob_B.isnan().all()


def kept_by_hand(weights: list[int], top_p: float, top_k: int) -> set[int]:
    order = sorted(range(len(weights)), key=lambda token: (-weights[token], token))
    order = [token for token in (order[:top_k] if top_k else order) if weights[token] > 0]
    total = sum(weights[token] for token in order)
    kept: list[int] = []
    for token in order:
        if top_p < 1 and sum(weights[t] for t in kept) >= top_p * total:
            break
        kept.append(token)
    return set(kept)


@settings(deadline=None, max_examples=300)
@given(
    weights=st.lists(st.integers(0, 12), min_size=1, max_size=12).filter(any),
    top_p=st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9, 1.0]),
    top_k=st.integers(0, 14),
)
def test_kept_tokens_are_those_of_a_plain_loop(weights: list[int], top_p: float, top_k: int) -> None:
    kept = kept_tokens(torch.tensor([weights], dtype=torch.float64), top_p=top_p, top_k=top_k)[0]
    assert set(kept.nonzero()[:, 0].tolist()) == kept_by_hand(weights, top_p, top_k)


@given(values=st.lists(st.integers(0, 1000), min_size=1, max_size=40))
def test_doubling_sums_are_running_sums(values: list[int]) -> None:
    rows = torch.tensor([values, values[::-1]], dtype=torch.float64)
    expected = [list(itertools.accumulate(values)), list(itertools.accumulate(values[::-1]))]
    assert doubling_sums(rows).tolist() == expected
    assert rows.tolist() == [values, values[::-1]]  # what came in is as it was


@pytest.mark.parametrize("temperature, top_p, top_k", [(1.0, 1.0, 0), (0.5, 1.0, 0), (1.0, 0.8, 0), (1.5, 0.9, 4)])
def test_frequencies_are_the_probabilities(temperature: float, top_p: float, top_k: int) -> None:
    probabilities = np.array([0.05, 0.3, 0.1, 0.02, 0.25, 0.08, 0.2])
    scaled = probabilities ** (1 / temperature)
    whole = scaled / scaled.sum()
    kept = sorted(kept_by_hand([round(w * 1e12) for w in whole], top_p, top_k))
    expected = whole[kept] / whole[kept].sum()
    count = 20000
    drawn = draw(
        torch.from_numpy(probabilities).log().expand(count, -1),
        keys_of(list(range(count)), position=3),
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
    )
    counts = Counter(drawn.token_B.tolist())
    assert sorted(counts) == kept
    observed = np.array([counts[token] for token in kept])
    chi_square = float(((observed - count * expected) ** 2 / (count * expected)).sum())
    critical = {3: 16.27, 4: 18.47, 6: 22.46}[len(kept) - 1]  # p = 0.001
    assert chi_square < critical


@pytest.mark.parametrize(
    "values, field",
    [
        ((-0.1, 1.0, 0, 1), "temperature"),
        ((math.nan, 1.0, 0, 1), "temperature"),
        ((1.0, 0.0, 0, 1), "top_p"),
        ((1.0, 1.1, 0, 1), "top_p"),
        ((1.0, 1.0, -1, 1), "top_k"),
        ((1.0, 1.0, 0, 0), "max_new_tokens"),
    ],
)
def test_parameters_out_of_range_are_named(values: tuple[float, float, int, int], field: str) -> None:
    with pytest.raises(ValueError, match=f"{field}="):
        check_sampling(*values)
    check_sampling(0.0, 1.0, 0, 1)
