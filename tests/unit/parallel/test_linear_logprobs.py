"""One process; the sharded case is in tests/dist/test_linear_logprobs.py."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from seif_nemo.parallel.linear_logprobs import linear_logprobs

VOCAB, PADDED, TOKENS, HIDDEN = 37, 48, 23, 12


@dataclass
class Case:
    hidden: Tensor
    weight: Tensor
    tokens: Tensor
    on_logprobs: Tensor  # upstream gradients
    on_entropies: Tensor


def case(dtype: torch.dtype = torch.float32) -> Case:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(TOKENS, HIDDEN, generator=generator)
    weight = torch.randn(PADDED, HIDDEN, generator=generator)
    weight[VOCAB:] *= 50  # padding that would dominate if it were counted
    tokens = torch.randint(0, VOCAB, (TOKENS,), generator=generator)
    tokens[:2] = torch.tensor([0, VOCAB - 1])
    upstream = torch.randn(2, TOKENS, generator=generator)
    return Case(hidden.to(dtype), weight.to(dtype), tokens, upstream[0], upstream[1])


def plainly(given: Case, *, temperature: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probs, entropies and the gradients of hidden states and weight, in float64 with the whole log-softmax."""
    hidden, weight = given.hidden.double().requires_grad_(), given.weight.double().requires_grad_()
    log_p = ((hidden @ weight.T)[:, :VOCAB] / temperature).log_softmax(1)
    logprobs, entropies = log_p.gather(1, given.tokens[:, None])[:, 0], -(log_p.exp() * log_p).sum(1)
    total = (logprobs * given.on_logprobs).sum() + (entropies * given.on_entropies).sum()
    gradients = torch.autograd.grad(total, (hidden, weight))
    return logprobs.detach(), entropies.detach(), *gradients


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("tile_elements", [1, 5 * PADDED, 10**9])
def test_values_and_gradients_are_those_of_the_whole_log_softmax(temperature: float, tile_elements: int) -> None:
    given = case()
    hidden, weight = given.hidden.requires_grad_(), given.weight.requires_grad_()
    scores = linear_logprobs(
        hidden, weight, given.tokens, vocab_size=VOCAB, temperature=temperature, tile_elements=tile_elements
    )
    total = (scores.logprobs_T * given.on_logprobs).sum() + (scores.entropies_T * given.on_entropies).sum()
    found = (scores.logprobs_T, scores.entropies_T, *torch.autograd.grad(total, (hidden, weight)))
    for actual, expected in zip(found, plainly(given, temperature=temperature), strict=True):
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=2e-5)
    assert found[3][VOCAB:].abs().max() == 0


@pytest.mark.parametrize("name", ["logprobs_T", "entropies_T"])
def test_each_alone_has_its_gradient(name: str) -> None:
    given = case()
    upstream = given.on_logprobs if name == "logprobs_T" else given.on_entropies
    zero = torch.zeros(TOKENS)
    other = "on_entropies" if name == "logprobs_T" else "on_logprobs"
    setattr(given, other, zero)
    expected = plainly(given, temperature=1.0)
    hidden, weight = given.hidden.requires_grad_(), given.weight.requires_grad_()
    scores = linear_logprobs(hidden, weight, given.tokens, vocab_size=VOCAB)
    gradients = torch.autograd.grad((getattr(scores, name) * upstream).sum(), (hidden, weight))
    for actual, exact in zip(gradients, expected[2:], strict=True):
        torch.testing.assert_close(actual.double(), exact, rtol=1e-5, atol=2e-5)


def test_bfloat16_gives_the_fp32_result_of_bfloat16_logits() -> None:
    given = case(torch.bfloat16)
    logits = (given.hidden @ given.weight.T).float()[:, :VOCAB]
    scores = linear_logprobs(given.hidden, given.weight.requires_grad_(), given.tokens, vocab_size=VOCAB)
    expected = logits.log_softmax(1).gather(1, given.tokens[:, None])[:, 0]
    torch.testing.assert_close(scores.logprobs_T, expected, rtol=1e-6, atol=2e-5)
    scores.logprobs_T.sum().backward()
    assert given.weight.grad is not None
    assert given.weight.grad.dtype == torch.bfloat16


def test_huge_logits_and_no_tokens_are_fine() -> None:
    given = case()
    scores = linear_logprobs(given.hidden * 1000, given.weight, given.tokens, vocab_size=VOCAB)
    assert torch.isfinite(scores.logprobs_T).all()
    assert (scores.entropies_T >= -1e-3).all()
    none = linear_logprobs(given.hidden[:0], given.weight, given.tokens[:0], vocab_size=VOCAB)
    assert none.logprobs_T.shape == none.entropies_T.shape == (0,)


def test_temperature_must_be_positive() -> None:
    given = case()
    with pytest.raises(ValueError, match="temperature=0"):
        linear_logprobs(given.hidden, given.weight, given.tokens, vocab_size=VOCAB, temperature=0.0)
