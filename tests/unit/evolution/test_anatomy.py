import numpy as np
import pytest

from seif_nemo.evolution.anatomy import generation_values, length_values, speed_values, work_values
from seif_nemo.evolution.rewarded import RewardedRollout
from seif_nemo.types.rollouts import FinishReason, Rollout
from seif_nemo.types.training import TrainSample
from tests.unit.models.test_flops import ARCH

SIZES = ((3, 4), (5, 0), (10, 20))  # tokens of prompt and response


def rewarded():
    return [
        RewardedRollout(
            Rollout(np.zeros(p, np.int64), np.zeros(r, np.int64), np.zeros(r), "", FinishReason.STOP, "v"), 0, None, {}
        )
        for p, r in SIZES
    ]


def test_lengths():
    assert length_values(rewarded()) == {
        "lengths/prompt_mean": 6.0,
        "lengths/prompt_max": 10.0,
        "lengths/response_mean": 8.0,
        "lengths/response_max": 20.0,
    }


def test_the_work_of_a_step_and_its_speed():
    samples = [
        TrainSample(np.zeros(p, np.int64), np.zeros(r, np.int64), *[np.zeros(r, np.float32)] * 3, group=0)
        for p, r in SIZES
    ]
    work = work_values(ARCH, samples)
    weights = 3 * (32 * (64 + 2 * 32) + 64 * 32 + 3 * 32 * 80)  # three layers
    attention = 3 * 2 * 64 * (7**2 + 5**2 + 30**2)
    tflop = 3 * (2 * weights * 42 + attention + 2 * 32 * 101 * 24) / 1e12
    assert work == pytest.approx({"train/num_input_tokens": 42.0, "train/model_tflop": tflop})
    values = work | {"time_s/train": 2.0, "time_s/generate": 4.0}
    own, ahead = ([generation_values([item.rollout for item in rewarded()[part]])] for part in (slice(2), slice(2, 3)))
    made = [*own, {f"draw_1/{name}": value for name, value in ahead[0].items()}]
    assert speed_values(values, made, num_devices=2, peak_tflop_per_s=tflop) == pytest.approx(
        {
            "generate/mean_tokens": 8.0,
            "generate/tokens_per_s": 6.0,
            "train/tokens_per_s": 21.0,
            "train/tflop_per_s_per_device": tflop / 4,
            "train/mfu": 0.25,
        }
    )
    assert "train/mfu" not in speed_values(values, made, num_devices=2, peak_tflop_per_s=None)


def test_what_was_not_done_has_no_speed():
    assert speed_values({"time_s/total": 1.0}, [], num_devices=1, peak_tflop_per_s=1.0) == {}
