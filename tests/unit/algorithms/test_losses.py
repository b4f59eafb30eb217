import pytest
import torch

from seif_nemo.algorithms.losses import PolicyLoss, clipped_policy_loss

CLIPS = {"clip_low": 0.2, "clip_high": 0.3, "dual_clip": 3.0}


def loss_of(
    ratios: list[float], advantages: list[float], mask: list[float] | None = None, denominator: float = 1.0
) -> tuple[PolicyLoss, list[float]]:
    """The loss at given ratios (old log-probs 0) and its gradient with respect to the log-probs."""
    logprobs = torch.tensor(ratios, dtype=torch.float64).log().requires_grad_()
    result = clipped_policy_loss(
        logprobs,
        torch.zeros(len(ratios), dtype=torch.float64),
        torch.tensor(advantages, dtype=torch.float64),
        torch.ones(len(ratios), dtype=torch.float64) if mask is None else torch.tensor(mask, dtype=torch.float64),
        denominator=denominator,
        **CLIPS,
    )
    (gradient,) = torch.autograd.grad(result.loss, logprobs)
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
    result, gradients = loss_of([ratio], [advantage])
    assert result.loss.item() == pytest.approx(loss)
    assert gradients == pytest.approx([gradient])
    assert result.clip_fraction.item() == clipped
    assert result.ratio_max.item() == pytest.approx(ratio)


def test_the_denominator_divides_sum_and_clip_fraction() -> None:
    result, gradients = loss_of([1.5, 1.0, 1.0], [2.0, 1.0, -3.0], denominator=8.0)
    assert result.loss.item() == pytest.approx((-2.6 - 1.0 + 3.0) / 8)
    assert gradients == pytest.approx([0.0, -1 / 8, 3 / 8])
    assert result.clip_fraction.item() == pytest.approx(1 / 8)


def test_parts_add_up_to_the_whole() -> None:
    ratios, advantages = [1.5, 0.7, 1.0, 4.0], [1.0, -1.0, 2.0, -0.5]
    whole, _ = loss_of(ratios, advantages, denominator=4.0)
    parts = [loss_of(ratios[i : i + 2], advantages[i : i + 2], denominator=4.0)[0] for i in (0, 2)]
    assert sum(part.loss.item() for part in parts) == pytest.approx(whole.loss.item())
    assert sum(part.clip_fraction.item() for part in parts) == pytest.approx(whole.clip_fraction.item())
    assert max(part.ratio_max.item() for part in parts) == pytest.approx(whole.ratio_max.item())


def test_masked_tokens_count_for_nothing() -> None:
    result, gradients = loss_of([1.0, 9.0], [1.0, -1.0], mask=[1.0, 0.0])
    assert (result.loss.item(), result.clip_fraction.item(), result.ratio_max.item()) == (-1.0, 0.0, 1.0)
    assert gradients == [-1.0, 0.0]


def test_extreme_ratios_stay_finite() -> None:
    logprobs = torch.tensor([0.0, -2000.0], requires_grad=True)
    old, advantages = torch.tensor([-2000.0, 0.0]), torch.tensor([-1.0, 1.0])
    result = clipped_policy_loss(logprobs, old, advantages, torch.ones(2), denominator=2.0, **CLIPS)
    result.loss.backward()
    assert result.loss.item() == pytest.approx(1.5)
    assert logprobs.grad is not None
    assert torch.isfinite(logprobs.grad).all()
