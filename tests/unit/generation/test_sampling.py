import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seif_nemo.generation.sampling import check_sampling, draw, kept_tokens, seed_keys, uniforms

ALMOST_ONE = 1 - 2.0**-53


def numbers(key: int, count: int) -> list[float]:
    return uniforms(np.full(count, key, dtype=np.uint64), np.arange(count)).tolist()


def test_uniforms_are_the_published_splitmix64_stream() -> None:
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert numbers(1234567, 4) == [(value >> 11) / 2**53 for value in published]


def test_seed_keys_take_any_integer_and_keep_close_seeds_apart() -> None:
    keys = seed_keys([0, 1, 2, -1, 2**64 - 1, 2**64])
    assert keys[3] == keys[4]  # -1 modulo 2**64
    assert keys[0] == keys[5]
    assert len(set(keys.tolist())) == 4
    first = uniforms(seed_keys(list(range(4000))), np.zeros(4000, dtype=np.int64))
    assert abs(first.mean() - 0.5) < 4 * math.sqrt(1 / 12 / 4000)
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 4 / math.sqrt(4000)


def test_a_row_does_not_depend_on_its_batch() -> None:
    torch.manual_seed(0)
    logits = torch.randn(7, 50)
    keys, positions = seed_keys([5, 6, 7, 8, 9, 10, 11]), np.array([3, 0, 9, 2, 2, 7, 1])
    together = draw(logits, torch.from_numpy(uniforms(keys, positions)), temperature=0.7, top_p=0.9, top_k=20)
    for row in (0, 3, 6):
        alone = draw(
            logits[row : row + 1],
            torch.from_numpy(uniforms(keys[row : row + 1], positions[row : row + 1])),
            temperature=0.7,
            top_p=0.9,
            top_k=20,
        )
        assert alone.token_B.item() == together.token_B[row].item()
        assert alone.logprob_B.item() == together.logprob_B[row].item()


@pytest.mark.parametrize(
    "uniform, token", [(0.0, 0), (0.2499, 0), (0.2501, 2), (0.74, 2), (0.7501, 4), (ALMOST_ONE, 4)]
)
def test_inverse_cdf_never_picks_a_token_of_probability_zero(uniform: float, token: int) -> None:
    logits = torch.tensor([[0.25, 0.0, 0.5, 0.0, 0.25, 0.0]]).log()
    drawn = draw(logits, torch.tensor([uniform], dtype=torch.float64), temperature=1.0, top_p=1.0, top_k=0)
    assert drawn.token_B.tolist() == [token]
    assert drawn.logprob_B.item() == pytest.approx(math.log(0.5 if token == 2 else 0.25))


def test_logprob_is_of_the_whole_distribution_after_temperature() -> None:
    # exp(logit / 2) is 1, 2, 3, 4: probabilities .1, .2, .3, .4. Top-k leaves the last two, .3 and .4 of them.
    logits = 2 * torch.tensor([[1.0, 2.0, 3.0, 4.0]]).log()
    for uniform, token, probability in ((0.42, 2, 0.3), (0.43, 3, 0.4)):
        drawn = draw(logits, torch.tensor([uniform], dtype=torch.float64), temperature=2.0, top_p=1.0, top_k=2)
        assert drawn.token_B.item() == token
        assert drawn.logprob_B.item() == pytest.approx(math.log(probability), abs=1e-6)


def test_greedy_takes_the_highest_and_reports_temperature_one() -> None:
    logits = torch.tensor([[1.0, 6.0, 3.0], [2.0, 0.0, 0.0]]).log()
    drawn = draw(logits, torch.full((2,), 0.999, dtype=torch.float64), temperature=0.0, top_p=1.0, top_k=0)
    assert drawn.token_B.tolist() == [1, 0]
    assert drawn.logprob_B.tolist() == pytest.approx([math.log(0.6), 0.0])


def test_bfloat16_logits_are_summed_exactly() -> None:
    logits = torch.zeros(1, 3000, dtype=torch.bfloat16)
    drawn = draw(logits, torch.tensor([0.5], dtype=torch.float64), temperature=1.0, top_p=1.0, top_k=0)
    assert drawn.token_B.item() == 1500
    assert drawn.logprob_B.item() == pytest.approx(-math.log(3000), rel=1e-7)


def test_a_logit_that_is_not_finite_shows_in_the_logprob() -> None:
    logits = torch.tensor([[0.0, math.nan, 1.0], [0.0, math.inf, 1.0]])
    drawn = draw(logits, torch.tensor([0.5, 0.5], dtype=torch.float64), temperature=1.0, top_p=1.0, top_k=0)
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
        torch.from_numpy(uniforms(seed_keys(list(range(count))), np.full(count, 3))),
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
