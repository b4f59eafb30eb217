"""What a GPU computes is what the CPU computes. Never ran yet."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.transformer_config import TransformerConfig

from seif_nemo.components.actor import Actor
from seif_nemo.config.algorithm import AlgorithmConfig, OptimizerConfig
from seif_nemo.config.parallel import Backend, ParallelConfig
from seif_nemo.models.cpu_modules import CoreAttention
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.linear_logprobs import linear_logprobs
from seif_nemo.parallel.topology import build_topology, shutdown
from seif_nemo.types.rollouts import LogProbs
from seif_nemo.types.training import TrainSample, TrainStats
from tests.dist.harness import run_ranks
from tests.dist.tiny_gpt import TINY, VOCAB, build_tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2)])
def test_fused_log_probs(dtype: torch.dtype, tolerance: float) -> None:
    make = torch.Generator().manual_seed(0)
    hidden = torch.randn(300, 64, generator=make).to(dtype)
    weight = (torch.randn(5003, 64, generator=make) / 8).to(dtype)
    tokens = torch.randint(0, 5003, (300,), generator=make)
    gradients: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    for device in ("cpu", "cuda"):
        h, w = (x.to(device).requires_grad_() for x in (hidden, weight))
        found = linear_logprobs(h, w, tokens.to(device), vocab_size=5003, tile_elements=2**16)
        (found.logprobs_T.sum() + 0.1 * found.entropies_T.sum()).backward()
        assert h.grad is not None and w.grad is not None
        gradients.append((found.logprobs_T.detach().cpu(), h.grad.cpu(), w.grad.cpu()))
    for ours, theirs in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(ours.float(), theirs.float(), rtol=tolerance, atol=tolerance)


def test_packed_attention_by_flash_kernels_sees_each_segment_alone() -> None:
    config = TransformerConfig(
        num_layers=1, hidden_size=256, num_attention_heads=4, num_query_groups=2, normalization="RMSNorm"
    )
    attention = CoreAttention(config=config, layer_number=1, attn_mask_type=AttnMaskType.causal, attention_type="self")
    make = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(130, heads, 64, generator=make) for heads in (4, 2, 2))
    results: list[torch.Tensor] = []
    for device, dtype in (("cpu", torch.float32), ("cuda", torch.bfloat16)):
        boundaries = torch.tensor([0, 64, 65, 130], dtype=torch.int32, device=device)
        packed = PackedSeqParams("thd", boundaries, boundaries, max_seqlen_q=65, max_seqlen_kv=65)
        tensors = (x.to(device=device, dtype=dtype) for x in (query, key, value))
        results.append(attention(*tensors, None, packed_seq_params=packed).float().cpu().reshape(130, -1))
    torch.testing.assert_close(results[1], results[0], rtol=2e-2, atol=2e-2)


class NoEngine:
    def invalidate_caches(self) -> None: ...


class OnlyPad:
    pad_id = 2


def train(backend: Backend) -> tuple[list[LogProbs], TrainStats]:
    topology = build_topology(ParallelConfig(backend=backend), seed=0, threads=1)
    modules = build_tiny(topology)
    trainable = TrainableModel(modules, modules[0].config, OptimizerConfig(learning_rate=1e-3, epsilon=1e-5), topology)
    engine: Any = NoEngine()
    tokenizer: Any = OnlyPad()
    actor = Actor(
        trainable, engine, tokenizer, topology, AlgorithmConfig(), TINY, micro_batch_tokens=64, max_new_tokens=16
    )
    rng = np.random.default_rng(1)
    samples: list[TrainSample] = []
    for index in range(12):
        prompt, length = rng.integers(0, VOCAB, int(rng.integers(1, 12))), int(rng.integers(1, 14))
        old = rng.normal(-4.2, 0.4, length).astype(np.float32)
        advantages = np.full(length, 1.0 if index % 2 else -1.0, dtype=np.float32)
        samples.append(TrainSample(prompt, rng.integers(0, VOCAB, length), old, old, advantages, index // 4))
    stats = [actor.train_step(samples, kl_coefficient=0.05, mini_batches=2, seed=step) for step in range(2)]
    logprobs = actor.logprobs([(sample.prompt_ids, sample.response_ids) for sample in samples])
    shutdown(topology)
    return logprobs, stats[-1]


def test_two_steps_of_the_actor() -> None:
    (cpu,), (cuda,) = (run_ranks(1, partial(train, backend)) for backend in (Backend.gloo, Backend.auto))
    for ours, theirs in zip(cuda[0], cpu[0], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    for name in ("loss", "grad_norm", "update_norm"):
        assert getattr(cuda[1], name) == pytest.approx(getattr(cpu[1], name), rel=1e-3, abs=1e-5), name
