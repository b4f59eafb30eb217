import pytest
import torch

from seif_nemo.algorithms.losses import TokenLosses
from seif_nemo.algorithms.ppo import clipped_losses

CLIPS = {"clip_low": 0.2, "clip_high": 0.3, "dual_clip": 3.0}


def loss_of(ratios: list[float], advantages: list[float]) -> tuple[TokenLosses, list[float]]:
    """The losses at given ratios (old log-probs 0) and the gradient of their sum with respect to the log-probs."""
    logprobs = torch.tensor(ratios, dtype=torch.float64).log().requires_grad_()
    old = torch.zeros(len(ratios), dtype=torch.float64)
    result = clipped_losses(logprobs, old, torch.tensor(advantages, dtype=torch.float64), **CLIPS)
    (gradient,) = torch.autograd.grad(result.losses_T.sum(), logprobs)
    return result, gradient.tolist()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        (1.0, 2.0, -2.0, -2.0, 0),  # on policy: -A r
        (1.25, 2.0, -2.5, -2.5, 0),  # inside the upper bound 1.3
        (1.5, 2.0, -2.6, 0.0, 1),  # -A 1.3, no gradient
        (0.5, 2.0, -1.0, -1.0, 0),  # a good token that became unlikely is never clipped
        (1.5, -2.0, 3.0, 3.0, 0),  # a bad token that became likely keeps its gradient
        (0.9, -2.0, 1.8, 1.8, 0),
        (0.5, -2.0, 1.6, 0.0, 1),  # -A 0.8, no gradient
        (5.0, -2.0, 6.0, 0.0, 1),  # dual clip: at most -A 3
        (5.0, 0.0, 0.0, 0.0, 0),
    ],
)
def test_one_token(ratio: float, advantage: float, loss: float, gradient: float, clipped: int) -> None:
    result, gradients = loss_of([ratio, 1.0], [advantage, 0.0])
    assert result.losses_T[0].item() == pytest.approx(loss)
    assert gradients == pytest.approx([gradient, 0.0])
    assert result.clipped_T.tolist() == [bool(clipped), False]
    assert result.ratios_T.tolist() == pytest.approx([ratio, 1.0])


def test_extreme_ratios_stay_finite() -> None:
    logprobs = torch.tensor([0.0, -2000.0], requires_grad=True)
    old, advantages = torch.tensor([-2000.0, 0.0]), torch.tensor([-1.0, 1.0])
    result = clipped_losses(logprobs, old, advantages, **CLIPS)
    result.losses_T.sum().backward()
    assert result.losses_T.sum().item() == pytest.approx(3.0)
    assert logprobs.grad is not None
    assert torch.isfinite(logprobs.grad).all()
