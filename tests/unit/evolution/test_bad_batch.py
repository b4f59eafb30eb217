"""What is kept of a mini-batch whose gradients were not finite."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from seif_nemo.components.updates import NonFiniteGradientsError
from seif_nemo.evolution.grpo import correction_values, keeping_a_bad_batch
from seif_nemo.evolution.paths import RunPaths
from seif_nemo.types.records import Phase
from seif_nemo.types.training import TrainSample


def _fail(context):
    values = np.array([-1.5, -np.inf], np.float32)
    sample = TrainSample(np.array([7]), np.array([8, 9]), values, values, np.array([0.5, np.nan], np.float32), 3)
    with keeping_a_bad_batch(context, 2, Phase.FOLLOWER, 14):
        raise NonFiniteGradientsError("10 updates in a row", [sample])


def test_it_is_in_a_file_that_the_error_names(tmp_path):
    context = SimpleNamespace(paths=RunPaths(tmp_path), may_write=lambda: True)
    with pytest.raises(NonFiniteGradientsError, match=r"10 updates in a row; round 2, follower step 14\. .*not-finite"):
        _fail(context)
    (row,) = map(json.loads, (tmp_path / "rounds/02/follower/not-finite-0014.jsonl").read_text().splitlines())
    assert (row["prompt_ids"], row["response_ids"], row["weights"], row["group"]) == ([7], [8, 9], None, 3)
    assert row["old_logprobs"] == [-1.5, -np.inf]
    assert row["advantages"][0] == 0.5
    assert np.isnan(row["advantages"][1])


def test_only_the_main_rank_writes(tmp_path):
    context = SimpleNamespace(paths=RunPaths(tmp_path), may_write=lambda: False)
    with pytest.raises(NonFiniteGradientsError):
        _fail(context)
    assert list(tmp_path.iterdir()) == []


def test_tokens_that_a_correction_masks_are_counted():
    ids, values = np.array([8, 9]), np.zeros(2, np.float32)
    plain = TrainSample(ids, ids, values, values, values, 0)
    weighted = TrainSample(ids, ids, values, values, values, 0, np.array([0.0, 1.5], np.float32))
    assert correction_values([plain]) == {}
    assert correction_values([plain, weighted]) == {
        "correction/masked_share": 0.5,
        "correction/mean_weight": 0.75,
        "correction/ess": 0.5,
    }
