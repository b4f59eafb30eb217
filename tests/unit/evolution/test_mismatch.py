import math

import numpy as np
import pytest

from seif_nemo.config.generation import GenerationConfig
from seif_nemo.evolution.mismatch import MismatchError, check_mismatch, effective_share, staleness_values


def _arrays(*values):
    return [np.array(value, dtype=np.float32) for value in values]


def test_an_exact_engine_gives_one_and_zero():
    logprobs = _arrays([-1.0, -2.0], [-0.5])
    assert check_mismatch(logprobs, logprobs, GenerationConfig()) == {"mismatch/ratio": 1.0, "mismatch/k3": 0.0}


def test_values_by_hand():
    values = check_mismatch(_arrays([-1.0, -1.25]), _arrays([-1.5, -1.0]), GenerationConfig(max_mismatch=2.0))
    assert values["mismatch/ratio"] == pytest.approx((math.exp(0.5) + math.exp(0.25)) / 2)
    assert values["mismatch/k3"] == pytest.approx(((math.exp(0.5) - 1.5) + (math.exp(-0.25) - 0.75)) / 2)


@pytest.mark.parametrize("off", [0.5, math.nan])
def test_too_far_off_stops_the_run(off):
    with pytest.raises(MismatchError, match=r"generation\.max_mismatch=1\.2"):
        check_mismatch(_arrays([-1.0]), _arrays([-1.0 - off]), GenerationConfig())


def test_the_lag_is_measured_apart():
    values = staleness_values(_arrays([-1.0, -1.25]), _arrays([-1.5, -1.0]))
    weights = [math.exp(0.5), math.exp(-0.25)]
    ess = sum(weights) ** 2 / (2 * sum(w * w for w in weights))
    assert values == pytest.approx({"staleness/mean_abs_delta": 0.375, "staleness/ess": ess}, rel=1e-6)


def test_effective_share():
    assert effective_share(np.array([2.0, 2.0, 2.0])) == 1.0
    assert effective_share(np.array([1.0, 0.0, 0.0, 0.0])) == 0.25
    assert effective_share(np.zeros(3)) == 0.0
