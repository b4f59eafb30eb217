"""Activation recomputation changes what is kept and not what is learned."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from seif_nemo.config.parallel import Recompute
from seif_nemo.parallel.topology import shutdown
from tests.dist.harness import run_ranks
from tests.dist.test_actor import KL, Layout, build, samples
from tests.dist.tiny_gpt import TINY


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    grad_norm: float
    moments: list[np.ndarray]  # after one update: the gradient and its square, times constants
    calls: dict[str, int]  # forwards of this rank's first layer and of its parts


def run_all(layout: Layout) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    for recompute in Recompute:
        topology, trainable, actor = build(layout, TINY, recompute=recompute)
        calls: Counter[str] = Counter()
        layer: Any = trainable.modules[0].decoder.layers[0]
        for name, module in (("layer", layer), ("attention", layer.self_attention.core_attention), ("mlp", layer.mlp)):
            module.register_forward_pre_hook(lambda *_, name=name, calls=calls: calls.update([name]))
        stats = actor.train_step(samples()[:6], kl_coefficient=KL, mini_batches=1, seed=1)
        moments = [buffer.numpy().copy() for buffer in trainable.moment_buffers()]
        outcomes[recompute.value] = Outcome(stats.grad_norm, moments, dict(calls))
        shutdown(topology)
    return outcomes


@pytest.mark.parametrize("layout", [Layout(2, tensor=2, sequence=True), Layout(2, pipeline=2)], ids=["tp2_sp", "pp2"])
def test_recomputation_gives_the_same_gradients(layout: Layout) -> None:
    for outcomes in run_ranks(2, run_all, layout):
        once = outcomes["none"].calls
        assert once["layer"] == once["attention"] == once["mlp"] > 0
        twice = 2 * once["layer"]
        assert outcomes["selective"].calls == {"layer": once["layer"], "attention": twice, "mlp": twice}
        assert outcomes["full"].calls == {"layer": twice, "attention": twice, "mlp": twice}
        expected = outcomes["none"]
        for outcome in outcomes.values():  # torch takes other kernels where no gradient is asked for: not to the bit
            assert outcome.grad_norm == pytest.approx(expected.grad_norm, rel=1e-6)
            for actual, moment in zip(outcome.moments, expected.moments, strict=True):
                assert np.abs(actual - moment).max() <= 1e-6 * np.abs(moment).max()
