"""Two vocabulary shards; padding falls into the second rank, or is all that it has."""

import numpy as np
import pytest
import torch
from torch import Tensor

from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.parallel.linear_logprobs import linear_logprobs
from seif_nemo.parallel.topology import build_topology, shutdown
from tests.dist.harness import run_ranks

TOKENS, PADDED, HIDDEN = 19, 48, 8


def case(vocab: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(vocab)
    hidden = torch.randn(TOKENS, HIDDEN, generator=generator)
    weight = torch.randn(PADDED, HIDDEN, generator=generator) * 2
    weight[vocab:] = 40.0
    tokens = torch.randint(0, vocab, (TOKENS,), generator=generator)
    tokens[:2] = torch.tensor([0, vocab - 1])
    return hidden, weight, tokens, torch.randn(2, TOKENS, generator=generator)


def run_sharded(vocabs: list[int], temperature: float) -> list[list[np.ndarray]]:
    topology = build_topology(ParallelConfig(tensor=2), seed=0, threads=1, rendezvous_timeout_s=60)
    results: list[list[np.ndarray]] = []
    for vocab in vocabs:
        hidden, weight, tokens, upstream = case(vocab)
        hidden.requires_grad_()
        shard = weight.chunk(2)[topology.tensor_rank].clone().requires_grad_()
        scores = linear_logprobs(
            hidden,
            shard,
            tokens,
            vocab_size=vocab,
            temperature=temperature,
            group=topology.tensor_group,
            tile_elements=5 * PADDED // 2,
        )
        total = (scores.logprobs_T * upstream[0]).sum() + (scores.entropies_T * upstream[1]).sum()
        gradients = torch.autograd.grad(total, (hidden, shard))
        found = (scores.logprobs_T.detach(), scores.entropies_T.detach(), *gradients)
        results.append([tensor.numpy() for tensor in found])
    shutdown(topology)
    return results


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_two_shards_give_the_whole_log_softmax(temperature: float) -> None:
    vocabs = [48, 41, 24, 20]  # no padding; some; the second rank has nothing but padding; padding on both
    by_rank = run_ranks(2, run_sharded, vocabs, temperature)
    for index, vocab in enumerate(vocabs):
        hidden, weight, tokens, upstream = case(vocab)
        hidden, weight = hidden.double().requires_grad_(), weight.double().requires_grad_()
        log_p = ((hidden @ weight.T)[:, :vocab] / temperature).log_softmax(1)
        logprobs, entropies = log_p.gather(1, tokens[:, None])[:, 0], -(log_p.exp() * log_p).sum(1)
        total = (logprobs * upstream[0]).sum() + (entropies * upstream[1]).sum()
        gradients = torch.autograd.grad(total, (hidden, weight))
        first, second = ([torch.from_numpy(array) for array in answer[index]] for answer in by_rank)
        for ours, theirs in zip(first[:2], second[:2], strict=True):
            assert torch.equal(ours, theirs)
        found = [first[0], first[1], first[2] + second[2], torch.cat([first[3], second[3]])]
        for actual, expected in zip(found, (logprobs, entropies, *gradients), strict=True):
            torch.testing.assert_close(actual.double(), expected.detach(), rtol=1e-5, atol=5e-5)
        assert found[3][vocab:].abs().sum() == 0
