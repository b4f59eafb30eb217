import math

import pytest
import torch

from seif_nemo.algorithms.kl import KL_ESTIMATORS, k1, k2, k3


def test_values_by_hand() -> None:
    policy, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])  # log reference - log policy: -0.5, 1
    assert k3(policy, reference).tolist() == pytest.approx([math.exp(-0.5) - 0.5, math.e - 2])


def test_gradients_by_hand() -> None:
    policy, reference = torch.tensor([-1.0, -2.0], requires_grad=True), torch.tensor([-1.5, -1.0])
    (gradient,) = torch.autograd.grad(k3(policy, reference).sum(), policy)
    assert gradient.tolist() == pytest.approx([1 - math.exp(-0.5), 1 - math.e])


def test_expectation_is_the_exact_divergence() -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.2, 0.2, 0.6]).double()
    exact = (p * (p / q).log()).sum().item()
    assert (p * k3(p.log(), q.log())).sum().item() == pytest.approx(exact)


def test_k3_stays_finite() -> None:
    policy = torch.tensor([-1000.0, 0.0], requires_grad=True)
    value = k3(policy, torch.tensor([0.0, -1000.0]))
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert policy.grad is not None
    assert torch.isfinite(policy.grad).all()


def test_the_three_estimators_by_hand() -> None:
    policy, reference = torch.tensor([-1.0, -2.0], requires_grad=True), torch.tensor([-1.5, -1.0])
    assert k1(policy, reference).tolist() == [0.5, -1.0]
    assert k2(policy, reference).tolist() == [0.125, 0.5]
    (gradient,) = torch.autograd.grad(k2(policy, reference).sum(), policy)
    assert gradient.tolist() == [0.5, -1.0]
    assert {kind.value: function for kind, function in KL_ESTIMATORS.items()} == {"k1": k1, "k2": k2, "k3": k3}
