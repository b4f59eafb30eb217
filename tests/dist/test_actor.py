"""GRPO steps of the Actor: every layout gives what one process gives, and that is what plain torch gives."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from seif_nemo.algorithms.groups import group_advantages
from seif_nemo.algorithms.grpo import grpo_advantages
from seif_nemo.components.actor import Actor
from seif_nemo.components.batching import split_mini_batches
from seif_nemo.config.algorithm import AlgorithmConfig, KlEstimator, LossMean, OptimizerConfig, PolicyLoss
from seif_nemo.config.parallel import Recompute
from seif_nemo.models.architecture import Architecture
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.topology import Topology, build_topology, shutdown
from seif_nemo.types.rollouts import LogProbs
from seif_nemo.types.training import TrainSample, TrainStats
from tests.dist.harness import run_ranks
from tests.dist.tiny_gpt import TINY, VOCAB, FullWeights, Layout, build_tiny, local_weights, merge_weights

ALGORITHM = AlgorithmConfig()
MICRO_BATCH_TOKENS = 40  # two or three sequences
# A large epsilon: Adam divides by the gradient's size, which would blow up rounding where gradients nearly cancel.
OPTIMIZER = OptimizerConfig(learning_rate=2e-3, weight_decay=0.1, epsilon=1e-5, max_grad_norm=0.5)
KL = 0.05
UNTIED = replace(TINY, tied_embeddings=False, qkv_bias=False, qk_norm=True, family="qwen3")


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What one rank saw, or (in `Run`) what all ranks agreed on."""

    tensor_rank: int
    logprobs: list[LogProbs]
    stats: list[TrainStats]
    weights: list[dict[str, np.ndarray]]  # before, after step 1, after step 3


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    logprobs: list[LogProbs]
    stats: list[TrainStats]
    weights: list[FullWeights]


class NoEngine:
    """Stands where the engine would; counts invalidations."""

    def __init__(self) -> None:
        self.invalidations = 0

    def generate(self, *_: object, **__: object) -> list[object]:
        raise AssertionError

    def invalidate_caches(self) -> None:
        self.invalidations += 1


class OnlyPad:
    pad_id = 2


def samples() -> list[TrainSample]:
    """Five groups of four: one has equal rewards and is dropped whole, one misses a reward. 15 samples are left."""
    rng = np.random.default_rng(5)
    rewards = [1, 0, 0, 1, 0.5, 0.5, 0.5, 0.5, 1, None, 0, 0, 0.2, 0.4, 0.9, 0.1, 0, 1, 1, 1]
    groups = [index // 4 for index in range(20)]
    result = group_advantages(rewards, groups, grpo_advantages)
    assert (result.num_used, result.num_zero_variance, result.num_missing_rewards) == (4, 1, 1)
    prompts = [rng.integers(0, VOCAB, rng.integers(1, 12)) for _ in range(5)]
    out: list[TrainSample] = []
    for group, advantage in zip(groups, result.advantages, strict=True):
        length = int(rng.integers(1, 14))
        response = rng.integers(0, VOCAB, length)
        old = rng.normal(-4.2, 0.4, length).astype(np.float32)  # ratios on both sides of every clip
        reference = rng.normal(-4.2, 0.4, length).astype(np.float32)
        if advantage is not None:
            advantages = np.full(length, advantage, dtype=np.float32)
            out.append(TrainSample(prompts[group], response, old, reference, advantages, group))
    assert len(out) == 15
    return out


STEPS = [  # samples, mini-batches, seed
    (samples(), 3, 11),
    (samples()[:14], 2, 12),
    (samples()[3:4], 2, 13),  # one sample: other replicas run fillers, and one mini-batch has nothing in it
]


def build(
    layout: Layout,
    arch: Architecture,
    algorithm: AlgorithmConfig = ALGORITHM,
    micro_batch_tokens: int = MICRO_BATCH_TOKENS,
    recompute: Recompute = Recompute.none,
) -> tuple[Topology, TrainableModel, Actor]:
    topology = build_topology(
        layout.config,
        seed=0,
        threads=1,
        rendezvous_timeout_s=60,
    )
    modules = build_tiny(topology, arch, recompute=recompute)
    trainable = TrainableModel(modules, modules[0].config, OPTIMIZER, topology)
    actor = Actor(
        trainable,
        NoEngine(),  # pyright: ignore[reportArgumentType]
        OnlyPad(),  # pyright: ignore[reportArgumentType]
        topology,
        algorithm,
        arch,
        micro_batch_tokens=micro_batch_tokens,
        max_new_tokens=16,
        temperature=0.9,
    )
    return topology, trainable, actor


def run_actor(layout: Layout, arch: Architecture) -> Result:
    topology, trainable, actor = build(layout, arch)
    weights = [local_weights(trainable.modules)]
    logprobs = actor.logprobs([(sample.prompt_ids, sample.response_ids) for sample in samples()])
    stats: list[TrainStats] = []
    for index, (chosen, mini_batches, seed) in enumerate(STEPS):
        stats.append(actor.train_step(chosen, kl_coefficient=KL, mini_batches=mini_batches, seed=seed))
        if index != 1:
            weights.append(local_weights(trainable.modules))
    assert trainable.step_count == 6
    shutdown(topology)
    return Result(topology.tensor_rank, logprobs, stats, weights)


@cache
def run(layout: Layout, arch: Architecture) -> Run:
    results: list[Result] = run_ranks(layout.world, run_actor, layout, arch)
    first = results[0]
    for other in results[1:]:
        assert other.stats == first.stats
        assert all(np.array_equal(a, b) for a, b in zip(other.logprobs, first.logprobs, strict=True))
    return Run(
        first.logprobs,
        first.stats,
        [merge_weights([(r.tensor_rank, r.weights[i]) for r in results], layout.tensor) for i in range(3)],
    )


ONE = Layout(1)
LAYOUTS = [
    Layout(2, tensor=2),
    Layout(2, tensor=2, sequence=True),
    Layout(2, pipeline=2),
    Layout(2),
    Layout(4, tensor=2, pipeline=2),
    Layout(4, pipeline=2),
    Layout(2, context=2),
    Layout(4, context=2, tensor=2, sequence=True),
    Layout(4, context=2, pipeline=2),
    Layout(4, context=2),
    Layout(4, context=4),
]
CASES = [(layout, TINY) for layout in LAYOUTS] + [(Layout(4, tensor=2, pipeline=2, sequence=True), UNTIED)]


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(("layout", "arch"), CASES, ids=lambda case: getattr(case, "family", repr(case)[6:]))
def test_a_layout_gives_the_one_process_result(layout: Layout, arch: Architecture) -> None:
    check_layout(layout, arch)


def check_layout(layout: Layout, arch: Architecture) -> None:
    expected, actual = run(ONE, arch), run(layout, arch)
    for name, value in expected.weights[0].items():
        assert np.array_equal(actual.weights[0][name], value), name
    for a, b in zip(actual.logprobs, expected.logprobs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    for a, b in zip(actual.stats, expected.stats, strict=True):
        for field in ("kl", "entropy", "clip_fraction", "ratio_max", "grad_norm", "update_norm", "learning_rate"):
            assert getattr(a, field) == pytest.approx(getattr(b, field), rel=1e-5), field
        for field in ("loss", "policy_loss"):  # a mean of terms of size 1 that nearly cancel
            assert getattr(a, field) == pytest.approx(getattr(b, field), rel=1e-5, abs=1e-6), field
        for field in ("num_samples", "num_tokens", "num_updates", "num_skipped_updates"):
            assert getattr(a, field) == getattr(b, field), field
    for step in (1, 2):
        assert actual.weights[step].keys() == expected.weights[step].keys()
        for name, value in expected.weights[step].items():
            assert relative(actual.weights[step][name], value) <= 1e-5, (step, name)
            change = value - expected.weights[0][name]
            assert relative(actual.weights[step][name] - actual.weights[0][name], change) <= 1e-3, (step, name)


def run_plainly() -> tuple[Run, list[int]]:
    """The same three steps in plain torch: one sequence at a time, whole log-softmax, torch's AdamW."""
    topology, trainable, _ = build(ONE, TINY)
    model = trainable.modules[0]
    names = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in names.values() if p.dim() > 1], "weight_decay": OPTIMIZER.weight_decay},
            {"params": [p for p in names.values() if p.dim() == 1], "weight_decay": 0.0},
        ],
        lr=OPTIMIZER.learning_rate,
        betas=(OPTIMIZER.beta1, OPTIMIZER.beta2),
        eps=OPTIMIZER.epsilon,
    )

    def logprobs_of(sample: TrainSample) -> Tensor:
        ids = torch.from_numpy(np.concatenate([sample.prompt_ids, sample.response_ids]))[None]
        logits = model(ids, torch.arange(ids.shape[1])[None], None)[0, :, :VOCAB] / 0.9
        first = len(sample.prompt_ids) - 1
        rows = logits.log_softmax(1)[first:-1]
        return rows.gather(1, torch.from_numpy(sample.response_ids)[:, None])[:, 0]

    before = local_weights([model])
    logprobs = [logprobs_of(sample).detach().numpy() for sample in samples()]
    losses, norms, moves, clipped, after = [], [], [], [], []
    for step, (chosen, mini_batches, seed) in enumerate(STEPS):
        step_loss, step_norms, step_moves, step_clipped, step_tokens = 0.0, [], [], 0, 0
        for indices in split_mini_batches([s.group for s in chosen], mini_batches, seed=seed):
            tokens = sum(len(chosen[i].response_ids) for i in indices)
            total = torch.zeros(())
            for i in indices:
                new = logprobs_of(chosen[i])
                old, reference = (
                    torch.from_numpy(chosen[i].old_logprobs),
                    torch.from_numpy(chosen[i].reference_logprobs),
                )
                for ratio, gap in zip((new - old).exp(), reference - new, strict=True):
                    advantage = float(chosen[i].advantages[0])
                    bounded = min(max(ratio.item(), 0.8), 1.3)
                    policy = -advantage * ratio
                    if (advantage > 0 and ratio > 1.3) or (advantage < 0 and ratio < 0.8):
                        policy = torch.tensor(-advantage * bounded)
                        step_clipped += 1
                    elif advantage < 0 and ratio > 3:
                        policy = torch.tensor(-advantage * 3)
                        step_clipped += 1
                    total = total + policy + KL * (gap.exp() - 1 - gap)
            gradients = torch.autograd.grad(total / tokens, list(names.values()))
            norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt().item()
            for parameter, gradient in zip(names.values(), gradients, strict=True):
                parameter.grad = gradient * min(1.0, OPTIMIZER.max_grad_norm / (norm + 1e-6))
            old = [parameter.detach().clone() for parameter in names.values()]
            optimizer.step()
            optimizer.zero_grad()
            changes = [(new.detach() - before).square().sum() for new, before in zip(names.values(), old, strict=True)]
            step_moves.append(torch.stack(changes).sum().sqrt().item())
            step_loss, step_tokens = step_loss + total.item(), step_tokens + tokens
            step_norms.append(norm)
        losses.append(step_loss / step_tokens)
        norms.append(sum(step_norms) / len(step_norms))
        moves.append(sum(step_moves) / len(step_moves))
        clipped.append(step_clipped)
        if step != 1:
            after.append(local_weights([model]))
    shutdown(topology)
    stats = [
        TrainStats(loss, 0, 0, 0, 0, 0, norm, moved, OPTIMIZER.learning_rate, 0, 0, 0, 0, 0, 0, 0)
        for loss, norm, moved in zip(losses, norms, moves, strict=True)
    ]
    return Run(logprobs, stats, [before, *after]), clipped


def test_one_process_gives_what_plain_torch_gives() -> None:
    ((expected, clipped),) = run_ranks(1, run_plainly)
    actual = run(ONE, TINY)
    assert clipped[0] > 5  # the samples do reach the clips
    assert max(stats.grad_norm for stats in expected.stats) > OPTIMIZER.max_grad_norm
    for a, b in zip(actual.logprobs, expected.logprobs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    for a, b, count in zip(actual.stats, expected.stats, clipped, strict=True):
        assert a.loss == pytest.approx(b.loss, rel=1e-5)
        assert a.grad_norm == pytest.approx(b.grad_norm, rel=1e-5)
        assert a.update_norm == pytest.approx(b.update_norm, rel=1e-4)  # plain torch's is a difference of weights
        assert round(a.clip_fraction * a.num_tokens) == count
    for step in (1, 2):
        for name, value in expected.weights[step].items():
            assert relative(actual.weights[step][name], value) <= 1e-5, (step, name)


OTHERS = {
    "gspo": AlgorithmConfig(policy_loss=PolicyLoss.gspo, loss_mean=LossMean.sequence, clip_low=0.05, clip_high=0.1),
    "cispo": AlgorithmConfig(policy_loss=PolicyLoss.cispo, clip_low=1.0, entropy_coefficient=0.02),
    "dr_grpo": AlgorithmConfig(loss_mean=LossMean.constant, kl_estimator=KlEstimator.k2),
}


def weighted_samples() -> list[TrainSample]:
    """With weights on the tokens of every other response."""
    rng = np.random.default_rng(9)
    return [
        replace(sample, weights=rng.uniform(0, 2, len(sample.response_ids)).astype(np.float32) if index % 2 else None)
        for index, sample in enumerate(samples())
    ]


def run_other(layout: Layout, name: str) -> tuple[int, TrainStats, dict[str, np.ndarray]]:
    topology, trainable, actor = build(layout, TINY, OTHERS[name])
    stats = actor.train_step(weighted_samples(), kl_coefficient=KL, mini_batches=1, seed=3)
    weights = local_weights(trainable.modules)
    shutdown(topology)
    return topology.tensor_rank, stats, weights


def dense_logits(model: torch.nn.Module, chosen: list[TrainSample], *, padded: bool) -> list[Tensor]:
    """Of each sequence, [positions, vocabulary]: all in one batch padded on the right, or one sequence at a time."""
    ids = [torch.from_numpy(np.concatenate([sample.prompt_ids, sample.response_ids])) for sample in chosen]
    batches = [torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)] if padded else [each[None] for each in ids]
    rows = [
        row
        for batch in batches
        for row in model(batch, torch.arange(batch.shape[1]).expand(len(batch), -1), None)[..., :VOCAB]
    ]
    return [row[: len(each)] for row, each in zip(rows, ids, strict=True)]


def other_loss(name: str, model: torch.nn.Module, *, padded: bool = False) -> Tensor:
    """The loss of one mini-batch in plain torch."""
    total, chosen = torch.zeros(()), weighted_samples()
    for sample, logits in zip(chosen, dense_logits(model, chosen, padded=padded), strict=True):
        rows = (logits / 0.9).log_softmax(1)[len(sample.prompt_ids) - 1 : -1]
        new = rows.gather(1, torch.from_numpy(sample.response_ids)[:, None])[:, 0]
        ratio = (new - torch.from_numpy(sample.old_logprobs)).exp()
        gap = torch.from_numpy(sample.reference_logprobs) - new
        advantages = torch.from_numpy(sample.advantages)
        weights = torch.ones(len(new)) if sample.weights is None else torch.from_numpy(sample.weights)
        entropy = -(rows.exp() * rows).sum(1)
        if name == "gspo":
            ratio = ratio.log().mean().exp().expand(len(new))
            policy = -torch.minimum(ratio * advantages, ratio.clamp(0.95, 1.1) * advantages)
            total = total + ((policy * weights + KL * (gap.exp() - 1 - gap)) / len(new) / len(chosen)).sum()
        elif name == "cispo":
            policy = -advantages * ratio.clamp(0, 1.3).detach() * new
            tokens = sum(len(each.response_ids) for each in chosen)
            total = total + ((policy * weights + KL * (gap.exp() - 1 - gap) - 0.02 * entropy) / tokens).sum()
        else:
            policy = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(0.8, 1.3))
            policy = torch.where(advantages < 0, torch.minimum(policy, -advantages * 3), policy)
            total = total + ((policy * weights + KL * gap.square() / 2) / 16 / len(chosen)).sum()
    return total


def run_other_plainly(name: str, padded: bool = False) -> tuple[float, float]:
    topology, trainable, _ = build(ONE, TINY, OTHERS[name])
    loss = other_loss(name, trainable.modules[0], padded=padded)
    gradients = torch.autograd.grad(loss, list(trainable.modules[0].parameters()))
    shutdown(topology)
    return loss.item(), torch.stack([g.square().sum() for g in gradients]).sum().sqrt().item()


@pytest.mark.parametrize("name", OTHERS)
def test_other_losses_are_theirs_in_every_layout(name: str) -> None:
    ((loss, norm),) = run_ranks(1, run_other_plainly, name)
    layouts = [ONE, Layout(2, tensor=2, sequence=True), Layout(4, pipeline=2), Layout(2, context=2)]
    runs = [run_ranks(layout.world, run_other, layout, name) for layout in layouts]
    expected = merge_weights([(rank, weights) for rank, _, weights in runs[0]], 1)
    for layout, results in zip(layouts, runs, strict=True):
        stats = results[0][1]
        assert all(other == stats for _, other, _ in results)
        assert stats.loss == pytest.approx(loss, rel=1e-5, abs=1e-6)
        assert stats.grad_norm == pytest.approx(norm, rel=1e-5)
        actual = merge_weights([(rank, weights) for rank, _, weights in results], layout.tensor)
        for key, value in expected.items():
            assert relative(actual[key], value) <= 1e-5, (layout, key)


def run_packed(budget: int) -> TrainStats:
    topology, _, actor = build(ONE, TINY, OTHERS["cispo"], micro_batch_tokens=budget)
    stats = actor.train_step(weighted_samples(), kl_coefficient=KL, mini_batches=1, seed=3)
    shutdown(topology)
    return stats


def test_packed_and_padded_and_one_by_one_are_the_same() -> None:
    alone, padded = (run_ranks(1, run_other_plainly, "cispo", padded)[0] for padded in (False, True))
    one_each, some, all_in_one = (run_ranks(1, run_packed, budget)[0] for budget in (1, 40, 10_000))
    assert [stats.num_micro_batches for stats in (one_each, some, all_in_one)] == [15, 5, 1]
    for loss, norm in (padded, *((stats.loss, stats.grad_norm) for stats in (one_each, some, all_in_one))):
        assert loss == pytest.approx(alone[0], rel=1e-5, abs=1e-6)
        assert norm == pytest.approx(alone[1], rel=1e-5)
