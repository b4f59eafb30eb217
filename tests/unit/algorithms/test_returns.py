"""Returns over the tokens of a response, against sums written out."""

import numpy as np
import pytest

from seif_nemo.algorithms.dapo import overlong_penalty
from seif_nemo.algorithms.importance import importance_weights
from seif_nemo.algorithms.means import denominator, token_weight
from seif_nemo.algorithms.reinforce_pp import normalise_over_batch, returns_to_go
from seif_nemo.config.algorithm import LossMean


def floats(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_returns_to_go_take_off_the_penalties_still_to_come() -> None:
    assert returns_to_go(1.0, floats(0.25, 0.5, -0.125)).tolist() == [0.375, 0.625, 1.125]


def test_the_batch_has_mean_0_and_standard_deviation_1() -> None:
    found = normalise_over_batch([floats(1, 2), floats(3)])
    assert found[0].tolist() == pytest.approx([-1 / (1 + 1e-6), 0.0])
    assert found[1].tolist() == pytest.approx([1 / (1 + 1e-6)])
    assert [values.tolist() for values in normalise_over_batch([floats(5)])] == [[0.0]]
    assert normalise_over_batch([]) == []


@pytest.mark.parametrize(("tokens", "penalty"), [(0, 0), (12, 0), (13, -0.125), (16, -0.5), (20, -1.0), (25, -1.0)])
def test_the_overlong_penalty_falls_over_the_buffer(tokens: int, penalty: float) -> None:
    assert overlong_penalty(tokens, max_tokens=20, buffer_tokens=8) == penalty


@pytest.mark.parametrize(
    ("per_sequence", "mask", "expected"),
    [
        (False, False, [2.0, 0.5, 1.0, 2.0]),
        (False, True, [2.0, 0.5, 1.0, 0.0]),
        (True, False, [2.0] * 4),  # 2 x 0.5 x 1 x 4 = 4, cut
        (True, True, [0.0] * 4),
    ],
)
def test_importance_weights(per_sequence: bool, mask: bool, expected: list[float]) -> None:
    old, rollout = np.log(floats(0.5, 0.1, 0.3, 0.8)), np.log(floats(0.25, 0.2, 0.3, 0.2))
    weights = importance_weights(old, rollout, bound=2.0000001, per_sequence=per_sequence, mask=mask)
    assert weights.tolist() == pytest.approx(expected, rel=1e-5)
    assert weights.dtype == np.float32


def test_a_weight_far_below_1_is_masked_and_never_cut() -> None:
    old, rollout = floats(-9.0), floats(0.0)
    assert importance_weights(old, rollout, bound=3, per_sequence=False, mask=True).tolist() == [0.0]
    assert importance_weights(old, rollout, bound=3, per_sequence=False, mask=False) == pytest.approx(np.exp(-9))


def test_means() -> None:
    lengths = [2, 0, 4]
    found = {mean: denominator(mean, lengths, max_tokens=10) for mean in LossMean}
    assert found == {LossMean.token: 6.0, LossMean.sequence: 2.0, LossMean.constant: 20.0}
    assert [token_weight(LossMean.sequence, n) for n in (0, 2, 4)] == [1.0, 0.5, 0.25]
    assert {token_weight(mean, 4) for mean in (LossMean.token, LossMean.constant)} == {1.0}
    assert all(denominator(mean, [0, 0], max_tokens=10) == 0 for mean in LossMean)
