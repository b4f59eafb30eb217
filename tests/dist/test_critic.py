"""The critic: every layout gives what one process gives, and that is what plain torch gives."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from seif_nemo.components.batching import split_mini_batches
from seif_nemo.components.critic import Critic, explained_variance
from seif_nemo.config.algorithm import OptimizerConfig
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.topology import Topology, build_topology, shutdown
from seif_nemo.types.rollouts import LogProbs
from seif_nemo.types.training import CriticStats, ValueSample
from tests.dist.harness import run_ranks
from tests.dist.tiny_gpt import TINY, VOCAB, FullWeights, Layout, build_tiny, local_weights, merge_weights

# The epsilon is that of test_actor.py: rounding must not be blown up where gradients nearly cancel.
OPTIMIZER = OptimizerConfig(learning_rate=2e-3, weight_decay=0.1, epsilon=1e-5, max_grad_norm=0.5)
FOUR = replace(TINY, num_layers=4)
CLIP = 0.3
EPOCHS, MINI_BATCHES, SEED = 2, 3, 5


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What one rank saw, or what all agreed on."""

    tensor_rank: int
    values: list[LogProbs]
    stats: list[CriticStats]
    weights: dict[str, np.ndarray]


def samples() -> list[ValueSample]:
    """Twelve responses of six groups, one without a token; old values on both sides of the clip."""
    rng = np.random.default_rng(8)
    out: list[ValueSample] = []
    for index in range(12):
        length = 0 if index == 4 else int(rng.integers(1, 14))
        prompt, response = rng.integers(0, VOCAB, int(rng.integers(1, 12))), rng.integers(0, VOCAB, length)
        values, returns = (rng.normal(0.0, 1.0, length).astype(np.float32) for _ in range(2))
        out.append(ValueSample(prompt, response, values, returns, group=index // 2))
    return out


def build(layout: Layout) -> tuple[Topology, TrainableModel, Critic]:
    topology = build_topology(layout.config, seed=0, threads=1, rendezvous_timeout_s=60)
    modules = build_tiny(topology, FOUR, with_value_head=True)
    trainable = TrainableModel(modules, modules[0].config, OPTIMIZER, topology)
    critic = Critic(trainable, topology, FOUR, pad_id=2, micro_batch_tokens=40, value_clip=CLIP, max_skipped_updates=3)
    return topology, trainable, critic


def run_critic(layouts: list[Layout]) -> list[Result]:
    results: list[Result] = []
    for layout in layouts:
        topology, trainable, critic = build(layout)
        values = critic.values([(sample.prompt_ids, sample.response_ids) for sample in samples()])
        stats = [
            critic.train_step(samples(), mini_batches=MINI_BATCHES, epochs=EPOCHS, seed=SEED),
            critic.train_step(samples()[:1], mini_batches=2, epochs=1, seed=SEED),  # other replicas run fillers
        ]
        results.append(Result(topology.tensor_rank, values, stats, local_weights(trainable.modules)))
        shutdown(topology)
    return results


def merged(per_rank: list[Result], tensor: int) -> tuple[Result, FullWeights]:
    first = per_rank[0]
    for other in per_rank[1:]:
        assert other.stats == first.stats
        assert all(np.array_equal(a, b) for a, b in zip(other.values, first.values, strict=True))
    return first, merge_weights([(result.tensor_rank, result.weights) for result in per_rank], tensor)


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


LAYOUTS = {
    2: [
        Layout(2),
        Layout(2, tensor=2),
        Layout(2, tensor=2, sequence=True),
        Layout(2, pipeline=2),
        Layout(2, context=2),
        Layout(2, pipeline=2, virtual=2),
    ],
    4: [
        Layout(4, tensor=2, context=2, sequence=True),
        Layout(4, tensor=2, pipeline=2, sequence=True),
        Layout(4, pipeline=2),
    ],
}


@pytest.fixture(scope="module")
def one_process() -> tuple[Result, FullWeights]:
    ((result,),) = run_ranks(1, run_critic, [Layout(1)])
    return merged([result], 1)


@pytest.mark.parametrize("world", LAYOUTS)
def test_a_layout_gives_the_one_process_result(world: int, one_process: tuple[Result, FullWeights]) -> None:
    expected, expected_weights = one_process
    per_rank = run_ranks(world, run_critic, LAYOUTS[world])
    for number, layout in enumerate(LAYOUTS[world]):
        actual, weights = merged([results[number] for results in per_rank], layout.tensor)
        for a, b in zip(actual.values, expected.values, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6, err_msg=repr(layout))
        for a, b in zip(actual.stats, expected.stats, strict=True):
            for field in CriticStats.__slots__:
                assert getattr(a, field) == pytest.approx(getattr(b, field), rel=1e-5), (layout, field)
        assert weights.keys() == expected_weights.keys()
        for name, value in expected_weights.items():
            assert relative(weights[name], value) <= 1e-5, (layout, name)


def run_plainly() -> tuple[list[LogProbs], float, float, FullWeights]:
    """The first step in plain torch, a sequence at a time: values, loss, mean gradient norm; both steps' weights."""
    topology, trainable, _ = build(Layout(1))
    (model,) = trainable.modules
    names = dict(model.named_parameters())
    decayed = [parameter for parameter in names.values() if parameter.dim() > 1]
    others = [parameter for parameter in names.values() if parameter.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": OPTIMIZER.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=OPTIMIZER.learning_rate,
        betas=(OPTIMIZER.beta1, OPTIMIZER.beta2),
        eps=OPTIMIZER.epsilon,
    )
    seen: list[Tensor] = []
    model.decoder.register_forward_hook(lambda _module, _args, output: seen.append(torch.as_tensor(output)))

    def values_of(sample: ValueSample) -> Tensor:
        ids = torch.from_numpy(np.concatenate([sample.prompt_ids, sample.response_ids]))[None]
        model(ids, torch.arange(ids.shape[1])[None], None)
        hidden_SH = seen.pop()[:, 0]
        first = len(sample.prompt_ids) - 1
        return (hidden_SH @ names["value_head.weight"] + names["value_head.bias"])[first:-1]

    values = [values_of(sample).detach().numpy() for sample in samples()]
    total, tokens, norms = 0.0, 0, []
    whole = [
        split_mini_batches([sample.group for sample in samples()], MINI_BATCHES, seed=SEED + epoch)
        for epoch in range(EPOCHS)
    ]
    for indices in [*whole[0], *whole[1], [0]]:
        count = sum(len(samples()[i].response_ids) for i in indices)
        loss = torch.zeros(())
        for i in indices:
            for value, old, wanted in zip(
                values_of(samples()[i]), samples()[i].values, samples()[i].returns, strict=True
            ):
                bounded = value.clamp(float(old) - CLIP, float(old) + CLIP)
                loss = loss + torch.maximum((value - float(wanted)) ** 2, (bounded - float(wanted)) ** 2) / 2
        gradients = torch.autograd.grad(loss / count, list(names.values()))
        norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt().item()
        for parameter, gradient in zip(names.values(), gradients, strict=True):
            parameter.grad = gradient * min(1.0, OPTIMIZER.max_grad_norm / (norm + 1e-6))
        optimizer.step()
        optimizer.zero_grad()
        if indices != [0]:
            total, tokens = total + loss.item(), tokens + count
            norms.append(norm)
    shutdown(topology)
    return values, total / tokens, sum(norms) / len(norms), local_weights([model])


def test_one_process_gives_what_plain_torch_gives(one_process: tuple[Result, FullWeights]) -> None:
    ((values, loss, norm, expected_weights),) = run_ranks(1, run_plainly)
    actual, weights = one_process
    for a, b in zip(actual.values, values, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)
    stats = actual.stats[0]
    assert 0.1 < stats.clip_fraction < 0.9
    assert norm > OPTIMIZER.max_grad_norm
    assert stats.loss == pytest.approx(loss, rel=1e-5)
    assert stats.grad_norm == pytest.approx(norm, rel=1e-5)
    assert (stats.num_updates, stats.num_skipped_updates, stats.learning_rate) == (6, 0, OPTIMIZER.learning_rate)
    for name, value in expected_weights.items():
        assert relative(weights[name], value) <= 1e-5, name


def test_explained_variance() -> None:
    returns = np.array([0.0, 1.0, 2.0])
    assert explained_variance(returns + 5, returns) == 1.0
    assert explained_variance(np.full(3, 7.0), returns) == 0.0
    assert explained_variance(np.array([0.0, 1.0, 1.0]), returns) == pytest.approx(1 - (2 / 9) / (2 / 3))
    assert np.isnan(explained_variance(returns, np.ones(3)))
