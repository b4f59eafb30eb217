"""GSPO and CISPO against their formulas, response by response, gradients included."""

import pytest
import torch
from torch import Tensor

from seif_nemo.algorithms.cispo import cispo_losses
from seif_nemo.algorithms.gspo import gspo_losses
from seif_nemo.algorithms.losses import weighted_sum

LENGTHS = [3, 1, 0, 5]
ROWS = torch.tensor([row for row, length in enumerate(LENGTHS) for _ in range(length)])


def case(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    new = torch.randn(9, generator=generator, dtype=torch.float64) * 0.3 - 2
    old = new + torch.randn(9, generator=generator, dtype=torch.float64) * 0.3
    advantages = torch.randn(4, generator=generator, dtype=torch.float64)
    return new.requires_grad_(), old, advantages


@pytest.mark.parametrize("seed", range(6))
def test_gspo(seed: int) -> None:
    new, old, advantages = case(seed)
    found = gspo_losses(new, old, advantages[ROWS], ROWS, 4, clip_low=0.05, clip_high=0.1)
    weights = torch.tensor([1 / length for length in LENGTHS for _ in range(length)], dtype=torch.float64)
    loss = weighted_sum(found.losses_T, weights, denominator=3.0)
    (gradient,) = torch.autograd.grad(loss, new)

    total, clipped, start = torch.zeros((), dtype=torch.float64), [], 0
    for row, length in enumerate(LENGTHS):
        if length == 0:
            continue
        part = slice(start, start + length)
        start += length
        ratio = (new[part] - old[part]).mean().exp()
        advantage = advantages[row]
        plain, bounded = ratio * advantage, ratio.clamp(0.95, 1.1) * advantage
        total = total - torch.minimum(plain, bounded)
        clipped += [bool(bounded < plain)] * length
    (expected,) = torch.autograd.grad(total / 3, new)
    assert loss.item() == pytest.approx(total.item() / 3, abs=1e-12)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)
    assert found.clipped_T.tolist() == clipped


@pytest.mark.parametrize("seed", range(6))
def test_cispo(seed: int) -> None:
    new, old, advantages = case(seed)
    found = cispo_losses(new, old, advantages[ROWS], clip_low=1.0, clip_high=0.1)
    loss = weighted_sum(found.losses_T, torch.ones(9, dtype=torch.float64), denominator=9.0)
    (gradient,) = torch.autograd.grad(loss, new)
    ratios = (new - old).exp().detach()
    # The gradient of -A w log p is -A w, also where the weight is cut.
    torch.testing.assert_close(gradient, -advantages[ROWS] * ratios.clamp(max=1.1) / 9, rtol=1e-12, atol=0)
    assert found.clipped_T.tolist() == (ratios > 1.1).tolist()
    assert any(found.clipped_T.tolist()) or seed != 0


def test_what_weighs_nothing_may_be_infinite() -> None:
    assert weighted_sum(torch.tensor([1.0, torch.inf]), torch.tensor([2.0, 0.0]), denominator=4.0).item() == 0.5
