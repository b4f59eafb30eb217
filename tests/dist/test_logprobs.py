"""Vocab-parallel log-probs on two ranks; padding falls into the second rank, or is all that a fourth rank has."""

import numpy as np
import pytest
import torch

from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.parallel.logprobs import vocab_parallel_logprobs
from seif_nemo.parallel.topology import build_topology, shutdown
from tests.dist.harness import run_ranks

TOKENS, PADDED = 19, 48


def case(vocab: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(vocab)
    logits = torch.randn(TOKENS, PADDED, generator=generator) * 6
    logits[:, vocab:] = 40.0
    logits[3] += 500  # exp would overflow without the maximum taken away
    tokens = torch.randint(0, vocab, (TOKENS,), generator=generator)
    tokens[:2] = torch.tensor([0, vocab - 1])
    return logits, tokens, torch.randn(TOKENS, generator=generator)


def run_sharded(vocabs: list[int], temperature: float) -> list[tuple[np.ndarray, np.ndarray]]:
    topology = build_topology(ParallelConfig(tensor=2), seed=0, threads=1, rendezvous_timeout_s=60)
    results = []
    for vocab in vocabs:
        logits, tokens, weights = case(vocab)
        shard = logits.chunk(2, dim=1)[topology.tensor_rank].clone().requires_grad_()
        logprobs = vocab_parallel_logprobs(
            shard,
            tokens,
            vocab_size=vocab,
            temperature=temperature,
            group=topology.tensor_group,
            chunk_elements=5 * PADDED // 2,
        )
        (logprobs * weights).sum().backward()
        assert shard.grad is not None
        results.append((logprobs.detach().numpy(), shard.grad.numpy()))
    shutdown(topology)
    return results


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_two_shards_give_the_whole_log_softmax(temperature: float) -> None:
    vocabs = [48, 41, 24, 20]  # no padding; some; the second rank has nothing but padding; padding on both
    answers = run_ranks(2, run_sharded, vocabs, temperature)
    by_rank = [[(torch.from_numpy(a), torch.from_numpy(b)) for a, b in answer] for answer in answers]
    for index, vocab in enumerate(vocabs):
        logits, tokens, weights = case(vocab)
        logits = logits.double().requires_grad_()
        expected = (logits[:, :vocab] / temperature).log_softmax(1).gather(1, tokens[:, None])[:, 0]
        (expected * weights).sum().backward()
        assert logits.grad is not None
        gradient = torch.cat([by_rank[rank][index][1] for rank in range(2)], dim=1)
        for rank in range(2):
            # rtol: the logits themselves carry fp32 rounding of values up to 500
            torch.testing.assert_close(by_rank[rank][index][0].double(), expected.detach(), rtol=1e-6, atol=6e-5)
        torch.testing.assert_close(by_rank[0][index][0], by_rank[1][index][0], rtol=0, atol=0)
        calm = [row for row in range(TOKENS) if row != 3]
        torch.testing.assert_close(by_rank[0][index][0][calm].double(), expected.detach()[calm], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(gradient[calm].double(), logits.grad[calm], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(gradient.double(), logits.grad, rtol=1e-4, atol=1e-4)
        assert gradient[:, vocab:].abs().sum() == 0
