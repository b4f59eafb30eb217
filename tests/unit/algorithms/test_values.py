"""What PPO's critic adds, against sums and losses written out by hand in float64."""

import math

import numpy as np
import pytest
import torch

from seif_nemo.algorithms.adaptive_kl import adapted_coefficient
from seif_nemo.algorithms.gae import generalised_advantages
from seif_nemo.algorithms.value_loss import clipped_value_losses


def floats(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 1.0), (1.0, 0.95), (0.9, 0.8), (0.99, 0.0), (0.0, 1.0)])
def test_gae_is_the_weighted_mean_of_all_lookaheads(gamma: float, gae_lambda: float) -> None:
    """Eq. 15 of the paper: (1 - lambda) (A1 + lambda A2 + ...), A_k being k rewards, then the value, less the value."""
    rng = np.random.default_rng(3)
    for length in (1, 2, 9):
        rewards, values = rng.normal(size=length).astype(np.float32), rng.normal(size=length).astype(np.float32)
        advantages, returns = generalised_advantages(rewards, values, gamma=gamma, gae_lambda=gae_lambda)
        after = [*values.tolist(), 0.0]
        for t in range(length):
            ahead = [
                sum(gamma**i * float(rewards[t + i]) for i in range(k)) + gamma**k * after[t + k] - after[t]
                for k in range(1, length - t + 1)
            ]
            weights = [(1 - gae_lambda) * gae_lambda**k for k in range(len(ahead) - 1)] + [
                gae_lambda ** (len(ahead) - 1)  # all longer ones are the last one: nothing comes after the end
            ]
            expected = sum(weight * value for weight, value in zip(weights, ahead, strict=True))
            assert advantages[t] == pytest.approx(expected, rel=1e-6, abs=1e-6)
            assert returns[t] == pytest.approx(expected + after[t], rel=1e-6, abs=1e-6)


def test_gae_with_both_at_one_is_the_reward_to_come_minus_the_value() -> None:
    advantages, returns = generalised_advantages(floats(0, 0, 2), floats(0.5, 1, 3), gamma=1.0, gae_lambda=1.0)
    assert advantages.tolist() == [1.5, 1.0, -1.0]
    assert returns.tolist() == [2.0, 2.0, 2.0]
    assert generalised_advantages(floats(), floats(), gamma=1.0, gae_lambda=1.0)[0].shape == (0,)


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "gradient", "clipped"),
    [
        (1.1, 1.0, 2.0, 0.405, -0.9, False),  # inside the bound
        (1.5, 1.0, 2.0, 0.32, 0.0, True),  # clipped to 1.2: (1.2 - 2)² / 2 is the larger one
        (0.5, 1.0, 2.0, 1.125, -1.5, False),  # clipped to 0.8 it would be the smaller one
        (1.5, 1.0, 1.0, 0.125, 0.5, False),
        (0.5, 1.0, 0.0, 0.32, 0.0, True),
    ],
)
def test_the_value_loss_by_hand(
    value: float, old: float, target: float, loss: float, gradient: float, clipped: bool
) -> None:
    values = torch.tensor([value], dtype=torch.float64, requires_grad=True)
    olds, targets = torch.tensor([old], dtype=torch.float64), torch.tensor([target], dtype=torch.float64)
    losses, is_clipped = clipped_value_losses(values, olds, targets, clip=0.2)
    losses.sum().backward()
    assert losses.item() == pytest.approx(loss)
    assert values.grad is not None
    assert values.grad.item() == pytest.approx(gradient)
    assert is_clipped.tolist() == [clipped]


def test_the_value_loss_and_its_gradient_are_the_larger_error() -> None:
    generator = torch.Generator().manual_seed(4)
    values, olds, targets = torch.randn(3, 400, generator=generator, dtype=torch.float64)
    values.requires_grad_()
    losses, clipped = clipped_value_losses(values, olds, targets, clip=0.3)
    (gradient,) = torch.autograd.grad(losses.sum(), values)
    assert 20 < clipped.sum() < 380
    for i in range(400):
        value, old, target = (tensor[i].item() for tensor in (values, olds, targets))
        plain, bounded = (value - target) ** 2, (min(max(value, old - 0.3), old + 0.3) - target) ** 2
        assert losses[i].item() == pytest.approx(max(plain, bounded) / 2, rel=1e-6, abs=1e-12)
        assert gradient[i].item() == pytest.approx(0.0 if bounded > plain else value - target, rel=1e-6, abs=1e-12)
    unbounded, clipped = clipped_value_losses(values, olds, targets, clip=math.inf)
    assert torch.allclose(unbounded, (values - targets) ** 2 / 2, rtol=1e-12)
    assert not clipped.any()


def test_the_coefficient_moves_towards_the_target_by_a_fifth_at_most() -> None:
    def adapted(kl: float) -> float:
        return adapted_coefficient(0.1, kl, target=6.0, horizon=100, num_responses=10)

    assert adapted(6.6) == pytest.approx(0.1 * (1 + 0.1 * 0.1))
    assert adapted(6.0) == 0.1
    assert adapted(60.0) == pytest.approx(0.1 * (1 + 0.2 * 0.1))
    assert adapted(0.0) == pytest.approx(0.1 * (1 - 0.2 * 0.1))
