"""The next step's rollouts on disk, and which weights' rollouts a step may learn from."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from seif_nemo.evolution.grpo import check_versions
from seif_nemo.evolution.rewarded import RewardedRollout
from seif_nemo.evolution.upcoming import read_upcoming, write_upcoming
from seif_nemo.protocols.engine import StaleWeightsError
from seif_nemo.types.rollouts import FinishReason, Rollout


def rollout(*response, version="follower@3", reason=FinishReason.STOP):
    logprobs = -np.sqrt(np.arange(1, len(response) + 1, dtype=np.float32))
    return Rollout(np.array([5, 7]), np.array(response, dtype=np.int64), logprobs, "tëxt\n", reason, version)


def test_rollouts_come_back_to_the_bit(tmp_path: Path):
    rewarded = [
        RewardedRollout(rollout(1, 2, 3), 4, 0.1 + 0.2, {"prompt": "p\u2028", "reason": None}),
        RewardedRollout(rollout(reason=FinishReason.LENGTH), 5, None, {}),
    ]
    values = {"reward/mean": 1 / 3, "judge/rate": math.inf}
    write_upcoming(tmp_path, (rewarded, values))
    found, found_values = read_upcoming(tmp_path)
    assert found_values == values
    for before, after in zip(rewarded, found, strict=True):
        assert (after.group, after.reward, after.note) == (before.group, before.reward, before.note)
        for name in ("prompt_ids", "response_ids", "logprobs"):
            old, new = getattr(before.rollout, name), getattr(after.rollout, name)
            assert (new.dtype, new.tobytes()) == (old.dtype, old.tobytes())
        for name in ("text", "finish_reason", "weight_version"):
            assert getattr(after.rollout, name) == getattr(before.rollout, name)


@pytest.mark.parametrize("staleness, accepted", [(0, {"follower@3"}), (1, {"follower@3", "follower@2"})])
def test_rollouts_of_other_weights_are_refused(staleness, accepted):
    bank = SimpleNamespace(version="follower@3", version_before="follower@2")
    settings = SimpleNamespace(algorithm=SimpleNamespace(max_staleness=staleness))
    context = SimpleNamespace(bank=bank, settings=settings)
    for version in ("follower@1", "follower@2", "follower@3", "follower@4", "instructor@3", "evaluator=follower@3"):
        if version in accepted:
            check_versions(context, [rollout(1, version=version)])
        else:
            with pytest.raises(StaleWeightsError, match=f"a rollout of {version} came to follower@3"):
                check_versions(context, [rollout(1), rollout(1, version=version)])
