"""One process; the sharded case is in tests/dist/test_logprobs.py."""

import pytest
import torch

from seif_nemo.parallel.logprobs import vocab_parallel_logprobs

VOCAB, PADDED, TOKENS = 37, 48, 23


def case(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(TOKENS, PADDED, generator=generator) * 5).to(dtype)
    logits[:, VOCAB:] = 50.0  # padding that would dominate if it were counted
    tokens = torch.randint(0, VOCAB, (TOKENS,), generator=generator)
    tokens[:2] = torch.tensor([0, VOCAB - 1])
    return logits, tokens, torch.randn(TOKENS, generator=generator)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("chunk_elements", [1, 5 * PADDED, 10**9])
def test_matches_log_softmax(temperature: float, chunk_elements: int) -> None:
    logits, tokens, weights = case()
    expected_logits = logits.double().requires_grad_()
    expected = (expected_logits[:, :VOCAB] / temperature).log_softmax(1).gather(1, tokens[:, None])[:, 0]
    (expected * weights).sum().backward()

    logits.requires_grad_()
    actual = vocab_parallel_logprobs(
        logits, tokens, vocab_size=VOCAB, temperature=temperature, chunk_elements=chunk_elements
    )
    (actual * weights).sum().backward()
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.double(), expected, rtol=1e-6, atol=1e-6)
    assert logits.grad is not None
    assert expected_logits.grad is not None
    torch.testing.assert_close(logits.grad.double(), expected_logits.grad, rtol=1e-6, atol=1e-6)
    assert logits.grad[:, VOCAB:].abs().max() == 0


def test_bfloat16_logits_give_the_fp32_result_of_those_logits() -> None:
    logits, tokens, _ = case(torch.bfloat16)
    expected = logits.float()[:, :VOCAB].log_softmax(1).gather(1, tokens[:, None])[:, 0]
    actual = vocab_parallel_logprobs(logits, tokens, vocab_size=VOCAB)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)


def test_input_is_left_alone_and_no_tokens_is_fine() -> None:
    logits, tokens, _ = case()
    before = logits.clone()
    vocab_parallel_logprobs(logits, tokens, vocab_size=VOCAB)
    assert torch.equal(logits, before)
    assert vocab_parallel_logprobs(logits[:0], tokens[:0], vocab_size=VOCAB).shape == (0,)


def test_gradcheck_in_finite_differences() -> None:
    logits, tokens, weights = case()
    logits.requires_grad_()
    (vocab_parallel_logprobs(logits, tokens, vocab_size=VOCAB) * weights).sum().backward()
    assert logits.grad is not None
    step = 1e-2
    for row, column in [(0, 0), (3, 5), (7, int(tokens[7])), (2, VOCAB)]:
        values = []
        for sign in (1, -1):
            moved = logits.detach().clone()
            moved[row, column] += sign * step
            values.append((vocab_parallel_logprobs(moved, tokens, vocab_size=VOCAB) * weights).sum().item())
        assert logits.grad[row, column].item() == pytest.approx((values[0] - values[1]) / (2 * step), abs=2e-3)


def test_temperature_must_be_positive() -> None:
    logits, tokens, _ = case()
    with pytest.raises(ValueError, match="temperature=0"):
        vocab_parallel_logprobs(logits, tokens, vocab_size=VOCAB, temperature=0.0)
