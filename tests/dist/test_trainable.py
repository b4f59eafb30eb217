"""The trainable model's flat buffers, optimizer state and settings."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seif_nemo.components.actor import Actor
from seif_nemo.components.updates import NonFiniteGradientsError
from seif_nemo.config.algorithm import AlgorithmConfig, OptimizerConfig
from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.topology import Topology, build_topology, shutdown
from seif_nemo.types.training import TrainSample
from tests.dist.harness import run_ranks
from tests.dist.tiny_gpt import TINY, VOCAB, build_tiny

OPTIMIZER = OptimizerConfig(learning_rate=1e-3)


class NoEngine:
    invalidations = 0

    def invalidate_caches(self) -> None:
        self.invalidations += 1


class OnlyPad:
    pad_id = 0


def build(
    dtype: torch.dtype, *, tensor: int = 1, offload: bool = False
) -> tuple[Topology, TrainableModel, Actor, NoEngine]:
    topology = build_topology(ParallelConfig(tensor=tensor), seed=0, threads=1, rendezvous_timeout_s=60)
    modules = build_tiny(topology, dtype=dtype)
    trainable = TrainableModel(modules, modules[0].config, OPTIMIZER, topology, offload=offload)
    engine: Any = NoEngine()
    tokenizer: Any = OnlyPad()
    actor = Actor(
        trainable, engine, tokenizer, topology, AlgorithmConfig(), TINY, micro_batch_tokens=64, max_new_tokens=16
    )
    return topology, trainable, actor, engine


def samples(seed: int) -> list[TrainSample]:
    rng = np.random.default_rng(seed)
    out: list[TrainSample] = []
    for _ in range(8):
        prompt, response = rng.integers(0, VOCAB, rng.integers(2, 6)), rng.integers(0, VOCAB, rng.integers(2, 6))
        logprobs = np.full(len(response), -4.1, np.float32)
        out.append(
            TrainSample(
                prompt, response, logprobs, logprobs, np.full(len(response), rng.normal(), dtype=np.float32), len(out)
            )
        )
    return out


def learn(actor: Actor, seed: int) -> None:
    stats = actor.train_step(samples(seed), kl_coefficient=0.01, mini_batches=2, seed=seed)
    assert stats.num_updates == 2


def copies(buffers: list[Tensor]) -> list[Tensor]:
    return [buffer.clone() for buffer in buffers]


def write(buffers: list[Tensor], values: list[Tensor]) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def swap_and_return(dtype: torch.dtype) -> None:
    topology, trainable, actor, _ = build(dtype)
    inside = [(buffer.data_ptr(), buffer.data_ptr() + buffer.nbytes) for buffer in trainable.weight_buffers()]
    for parameter in trainable.modules[0].parameters():
        assert any(start <= parameter.data_ptr() < end for start, end in inside)
    assert len(trainable.moment_buffers()) == (2 if dtype == torch.float32 else 3)
    learn(actor, 1)
    weights, moments = copies(trainable.weight_buffers()), copies(trainable.moment_buffers())
    assert trainable.step_count == 2
    assert all(moment.abs().sum() > 0 for moment in moments)
    learn(actor, 2)
    expected = copies([*trainable.weight_buffers(), *trainable.moment_buffers()])
    assert not equal(weights, trainable.weight_buffers())

    # Another trained role takes the model over, learns, and a frozen one visits before the first one is back.
    write(trainable.weight_buffers(), [0.5 * weight for weight in weights])
    write(trainable.moment_buffers(), [torch.zeros_like(moment) for moment in moments])
    trainable.step_count = 0
    trainable.after_weights_changed()
    learn(actor, 3)
    write(trainable.weight_buffers(), weights)
    write(trainable.moment_buffers(), moments)
    trainable.step_count = 2
    trainable.after_weights_changed()
    write(trainable.weight_buffers(), [0.25 * weight for weight in weights])
    trainable.after_weights_changed()
    visitor = actor.logprobs([(sample.prompt_ids, sample.response_ids) for sample in samples(2)])
    assert np.isfinite(np.concatenate(visitor)).all()
    write(trainable.weight_buffers(), weights)
    trainable.after_weights_changed()
    learn(actor, 2)
    assert equal(expected, [*trainable.weight_buffers(), *trainable.moment_buffers()])
    assert trainable.step_count == 4
    shutdown(topology)


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_role_that_comes_back_continues_to_the_bit(dtype: torch.dtype, world: int) -> None:
    run_ranks(world, swap_and_return, dtype)


def reset_and_refresh(dtype: torch.dtype) -> None:
    topology, trainable, actor, _ = build(dtype)
    weights = copies(trainable.weight_buffers())
    learn(actor, 1)
    expected = copies([*trainable.weight_buffers(), *trainable.moment_buffers()])
    for by_hand in (False, True):
        write(trainable.weight_buffers(), weights)
        if by_hand:  # what a bank does: zeros everywhere, and the main parameters follow the weights
            write(trainable.moment_buffers(), [torch.zeros_like(moment) for moment in trainable.moment_buffers()])
            trainable.step_count = 0
            trainable.after_weights_changed()
        else:
            trainable.reset_optimizer()
        learn(actor, 1)
        assert equal(expected, [*trainable.weight_buffers(), *trainable.moment_buffers()])
    shutdown(topology)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_reset_optimizer_is_a_fresh_one(dtype: torch.dtype) -> None:
    run_ranks(1, reset_and_refresh, dtype)


def settings() -> None:
    topology, trainable, actor, engine = build(torch.float32)
    # Weight decay alone: with zero gradients Adam's own step is 0 / (0 + epsilon).
    before = {name: parameter.detach().clone() for name, parameter in trainable.modules[0].named_parameters()}
    trainable.configure(OptimizerConfig(learning_rate=0.1, weight_decay=0.5, beta1=0.8, beta2=0.7, epsilon=1e-3))
    trainable.zero_gradients()
    assert trainable.apply_gradients() == (0.0, True)
    for name, parameter in trainable.modules[0].named_parameters():
        decay = 1 - 0.1 * 0.5 if parameter.dim() > 1 else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * decay)
    assert any(parameter.dim() == 1 for parameter in before.values())
    trainable.set_learning_rate(0.01)
    assert trainable.learning_rate == pytest.approx(0.01)
    assert trainable.step_count == 1

    # One gradient by hand: m = (1 - b1) g, v = (1 - b2) g², both corrected for step 1, and no clipping of norm 0.5.
    trainable.reset_optimizer()
    trainable.configure(OptimizerConfig(learning_rate=0.1, weight_decay=0.0, epsilon=1e-3))
    trainable.zero_gradients()
    module: Any = trainable.modules[0]
    weight = module.decoder.final_layernorm.weight
    old = weight.detach().clone()
    weight.main_grad[3] = 0.5
    norm, updated = trainable.apply_gradients()
    assert norm == pytest.approx(0.5)
    assert updated
    assert (weight - old)[3].item() == pytest.approx(-0.1 * 0.5 / (0.5 + 1e-3), rel=1e-5)
    assert torch.equal(weight[:3], old[:3])
    first = trainable.moment_buffers()[0]
    assert first[first != 0].tolist() == pytest.approx([0.1 * 0.5])

    # Gradients that are not finite change nothing but the counter.
    state = copies([*trainable.weight_buffers(), *trainable.moment_buffers()])
    chosen = samples(4)
    chosen[0] = replace(chosen[0], advantages=np.full_like(chosen[0].advantages, math.inf))
    stats = actor.train_step(chosen, kl_coefficient=0.0, mini_batches=1, seed=0)
    assert (stats.num_updates, stats.num_skipped_updates) == (0, 1)
    assert math.isnan(stats.grad_norm)
    assert equal(state, [*trainable.weight_buffers(), *trainable.moment_buffers()])
    assert trainable.step_count == 1
    stats = actor.train_step(chosen, kl_coefficient=0.0, mini_batches=2, seed=0)
    assert (stats.num_updates, stats.num_skipped_updates) == (1, 1)
    assert math.isfinite(stats.loss)
    assert math.isfinite(stats.grad_norm)
    assert stats.num_tokens == sum(len(sample.response_ids) for sample in chosen)
    assert engine.invalidations == 2

    # The tenth in a row stops the run; a good one in between starts the count again.
    assert actor.train_step(samples(4), kl_coefficient=0.0, mini_batches=1, seed=0).num_updates == 1
    for _ in range(9):
        assert actor.train_step(chosen, kl_coefficient=0.0, mini_batches=1, seed=0).num_skipped_updates == 1
    with pytest.raises(NonFiniteGradientsError, match=r"10 updates in a row .*max_skipped_updates=10") as caught:
        actor.train_step(chosen, kl_coefficient=0.0, mini_batches=1, seed=0)
    assert {id(sample) for sample in caught.value.samples} == {id(sample) for sample in chosen}

    # Nothing to learn from is no update.
    state = copies([*trainable.weight_buffers(), *trainable.moment_buffers()])
    stats = actor.train_step([], kl_coefficient=0.0, mini_batches=2, seed=0)
    assert (stats.num_updates, stats.loss, stats.grad_norm, stats.num_samples) == (0, 0.0, 0.0, 0)
    assert equal(state, [*trainable.weight_buffers(), *trainable.moment_buffers()])
    assert actor.logprobs([]) == []
    shutdown(topology)


def test_settings_decay_adam_and_bad_gradients() -> None:
    run_ranks(1, settings)


def many_small_updates(dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A norm's weight before, after one and after 40 updates of 1e-4 each: Adam's step for a steady gradient."""
    topology, trainable, _, _ = build(dtype)
    trainable.configure(OptimizerConfig(learning_rate=1e-4, weight_decay=0.0))
    module: Any = trainable.modules[0]
    weight = module.decoder.final_layernorm.weight
    seen = [weight.detach().float().numpy().copy()]
    for update in range(40):
        trainable.zero_gradients()
        weight.main_grad.fill_(1.0)
        assert trainable.apply_gradients()[1]
        if update in (0, 39):
            seen.append(weight.detach().float().numpy().copy())
    shutdown(topology)
    return seen[0], seen[1], seen[2]


def test_updates_below_the_resolution_of_bf16_add_up() -> None:
    ((before, after_one, after_all),) = run_ranks(1, many_small_updates, torch.bfloat16)
    resolution = 2.0**-8 * np.abs(before)  # at most: the distance to the next bf16 number
    assert (after_one == before).mean() > 0.9
    np.testing.assert_array_less(np.abs(after_all - (before - 40 * 1e-4)), resolution)
    assert (after_all < before).all()


def with_and_without_offload(tensor: int) -> list[list[bytes]]:
    """The bits of weights, moments and main parameters after two steps, a visit of other weights and a third step."""
    runs: list[list[bytes]] = []
    for offload in (False, True):
        topology, trainable, actor, _ = build(torch.bfloat16, tensor=tensor, offload=offload)
        learn(actor, 1)
        weights = copies(trainable.weight_buffers())
        write(trainable.weight_buffers(), [0.5 * weight for weight in weights])
        trainable.after_weights_changed()
        write(trainable.weight_buffers(), weights)
        trainable.after_weights_changed()
        stats = actor.train_step(samples(2), kl_coefficient=0.01, mini_batches=2, seed=2)
        assert stats.grad_norm > OPTIMIZER.max_grad_norm
        buffers = [*trainable.weight_buffers(), *trainable.moment_buffers(), torch.tensor([stats.grad_norm])]
        runs.append([buffer.view(torch.uint8).numpy().tobytes() for buffer in buffers])
        shutdown(topology)
    return runs


@pytest.mark.parametrize("tensor", [1, 2])
def test_an_offloaded_update_is_the_usual_one(tensor: int) -> None:
    for usual, offloaded in run_ranks(2, with_and_without_offload, tensor):
        assert offloaded == usual


def load_optimizer_state() -> None:
    topology, trainable, actor, _ = build(torch.float32)
    learn(actor, 1)
    state = copies(trainable.moment_buffers())
    for optimizer in trainable.optimizer.chained_optimizers:  # pyright: ignore[reportAttributeAccessIssue]
        optimizer.load_state_dict(optimizer.state_dict())
    trainable.adopt_optimizer_state()
    assert equal(state, trainable.moment_buffers())
    weights = copies(trainable.weight_buffers())
    learn(actor, 2)
    expected = copies([*trainable.weight_buffers(), *trainable.moment_buffers()])
    assert trainable.step_count == 4
    assert not equal(state, trainable.moment_buffers())  # the buffers are still what the optimizer writes to
    write(trainable.weight_buffers(), weights)
    write(trainable.moment_buffers(), state)
    trainable.step_count = 2
    learn(actor, 2)
    assert equal(expected, [*trainable.weight_buffers(), *trainable.moment_buffers()])
    shutdown(topology)


def test_buffers_survive_a_load_of_the_optimizer_state() -> None:
    run_ranks(1, load_optimizer_state)


assert TINY.vocab_size == VOCAB
