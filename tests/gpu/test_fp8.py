"""FP8 by Transformer Engine: it is really on, and the emulation is what it computes. Never ran yet."""

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch

from seif_nemo.components.actor import Actor
from seif_nemo.config.algorithm import AlgorithmConfig, OptimizerConfig
from seif_nemo.config.fp8 import Fp8Config, Fp8Recipe
from seif_nemo.config.model import Precision
from seif_nemo.config.parallel import Backend, ParallelConfig
from seif_nemo.models.fp8_quantizers import E4M3, round_trip_blocks, round_trip_tensor
from seif_nemo.models.precision import check_machine, plan_fp8, probe_machine
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.topology import build_topology, shutdown
from tests.dist.harness import run_ranks
from tests.dist.test_checkpointing import NoEngine, OnlyPad, samples
from tests.dist.test_fp8 import WIDE
from tests.dist.tiny_gpt import build_tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(
        importlib.util.find_spec("transformer_engine") is None, reason="Transformer Engine is not installed"
    ),
]


def skip_if_refused(recipe: Fp8Recipe) -> None:
    try:
        check_machine(Precision.fp8_hybrid, Fp8Config(recipe=recipe), probe_machine(torch.device("cuda")))
    except ValueError as error:
        pytest.skip(str(error))


def scores(precision: Precision, recipe: Fp8Recipe) -> tuple[np.ndarray, np.ndarray, float]:
    """Log-probs before and after one step, and its gradient norm."""
    topology = build_topology(ParallelConfig(backend=Backend.nccl), seed=0, threads=1, rendezvous_timeout_s=60)
    plan = plan_fp8(precision, Fp8Config(recipe=recipe))
    modules = build_tiny(topology, WIDE, torch.bfloat16, fp8=plan)  # its first pass checks that FP8 is on
    trainable = TrainableModel(modules, modules[0].config, OptimizerConfig(learning_rate=1e-3), topology)
    trainable.after_weights_changed()
    actor = Actor(
        trainable,
        NoEngine(),  # pyright: ignore[reportArgumentType]
        OnlyPad(),  # pyright: ignore[reportArgumentType]
        topology,
        AlgorithmConfig(),
        WIDE,
        micro_batch_tokens=64,
        max_new_tokens=16,
        temperature=1.0,
    )
    pairs = [(sample.prompt_ids, sample.response_ids) for sample in samples(5)]
    before = np.concatenate(actor.logprobs(pairs))
    norm = actor.train_step(samples(0), kl_coefficient=0.0, mini_batches=1, seed=0).grad_norm
    after = np.concatenate(actor.logprobs(pairs))
    shutdown(topology)
    return before, after, norm


@pytest.mark.parametrize("recipe", [Fp8Recipe.tensorwise, Fp8Recipe.blockwise, Fp8Recipe.mxfp8])
def test_the_emulation_is_nearer_to_transformer_engine_than_bf16_is(recipe: Fp8Recipe) -> None:
    skip_if_refused(recipe)
    ((hardware, _, norm),) = run_ranks(1, scores, Precision.fp8_hybrid, recipe)
    ((emulated, _, emulated_norm),) = run_ranks(1, scores, Precision.fp8_emulated, recipe)
    ((plain, _, _),) = run_ranks(1, scores, Precision.bf16, Fp8Recipe.blockwise)
    assert np.abs(hardware - emulated).mean() < 0.5 * np.abs(hardware - plain).mean()
    assert norm == pytest.approx(emulated_norm, rel=0.1)


def test_delayed_scaling_trains() -> None:
    skip_if_refused(Fp8Recipe.delayed)
    ((before, after, norm),) = run_ranks(1, scores, Precision.fp8_hybrid, Fp8Recipe.delayed)
    assert np.isfinite(norm) and not np.array_equal(before, after)


def test_the_quantiser_is_transformer_engines() -> None:
    skip_if_refused(Fp8Recipe.tensorwise)
    import transformer_engine.pytorch as engine  # pyright: ignore[reportMissingImports] never ran
    import transformer_engine_torch as tex  # pyright: ignore[reportMissingImports] never ran

    x = torch.randn(256, 512, generator=torch.Generator().manual_seed(0)).cuda()
    tensors: Any = engine.tensor
    quantizers = [
        (tensors.Float8CurrentScalingQuantizer(tex.DType.kFloat8E4M3, device=x.device), round_trip_tensor(x, E4M3))
    ]
    if hasattr(tensors, "Float8BlockQuantizer"):
        block = tensors.Float8BlockQuantizer(
            tex.DType.kFloat8E4M3, rowwise=True, columnwise=False, block_scaling_dim=1, force_pow_2_scales=True
        )
        quantizers.append((block, round_trip_blocks(x, E4M3, rows=1, columns=128)))
    for quantizer, expected in quantizers:
        torch.testing.assert_close(quantizer(x).dequantize().float(), expected, rtol=1e-6, atol=1e-7)
