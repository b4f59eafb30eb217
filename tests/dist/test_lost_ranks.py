"""A rank that does not come: the others say who they are, where they wait and for which collective."""

import re
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch.distributed as dist

from seif_nemo.components.actor import Actor
from seif_nemo.config.algorithm import AlgorithmConfig, OptimizerConfig
from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.observability.timers import Timers, during
from seif_nemo.parallel.collectives import any_rank
from seif_nemo.parallel.lost_ranks import LostRankError, naming_lost_ranks
from seif_nemo.parallel.topology import Topology, build_topology
from seif_nemo.types.training import TrainSample
from tests.dist.harness import run_ranks
from tests.dist.tiny_gpt import TINY, VOCAB, build_tiny

TIMEOUT_S = 5.0  # ranks must find each other in it on a busy machine
TAIL = rf"Another rank has ended or hangs, or is slower than parallel.collective_timeout_s={TIMEOUT_S:g} allows"


class NoEngine:
    def invalidate_caches(self) -> None: ...


class OnlyPad:
    pad_id = 2


def samples() -> list[TrainSample]:
    values = np.full(4, -1.0, dtype=np.float32)
    ids = np.arange(4) % VOCAB
    return [TrainSample(ids, ids, values, values, values, group) for group in range(4)]


def train(topology: Topology, actor: Actor) -> None:
    actor.train_step(samples(), kl_coefficient=0.0, mini_batches=1, seed=0)


def score(topology: Topology, actor: Actor) -> None:
    actor.logprobs([(sample.prompt_ids, sample.response_ids) for sample in samples()])


def agree(topology: Topology, actor: Actor) -> None:
    any_rank(False, topology)


def fail(topology: Topology, actor: Actor) -> None:
    raise RuntimeError("another fault")


class JudgeFaultError(RuntimeError):
    """A fault of ours that quotes another's."""


def fail_of_its_own(topology: Topology, actor: Actor) -> None:
    raise JudgeFaultError("the judge has timed out; see /runs/timeout_1")


def run_with_one_rank(
    config: ParallelConfig, work: Callable[[Topology, Actor], None], ends: bool
) -> tuple[str, str] | None:
    topology = build_topology(config, seed=0, threads=1, rendezvous_timeout_s=60)
    modules = build_tiny(topology)
    trainable = TrainableModel(modules, modules[0].config, OptimizerConfig(), topology)
    actor = Actor(
        trainable,
        NoEngine(),  # pyright: ignore[reportArgumentType]
        OnlyPad(),  # pyright: ignore[reportArgumentType]
        topology,
        AlgorithmConfig(),
        TINY,
        micro_batch_tokens=40,
        max_new_tokens=16,
    )
    dist.barrier()
    if topology.rank == 1:
        if not ends:
            time.sleep(TIMEOUT_S + 2)  # as if it hung
        return None
    timers = Timers()
    try:
        place = naming_lost_ranks(topology, lambda error: f"{during(error)}, after round 1")
        with place, timers("total"), timers("train"):
            work(topology, actor)
    except (LostRankError, RuntimeError) as error:
        return type(error).__name__, str(error)
    return None


@pytest.mark.parametrize(
    "tensor, work, collective",
    [
        (1, agree, r"all_reduce \(seif_nemo/parallel/collectives.py:\d+\)"),
        (1, train, r"start_grad_sync \(core/distributed/param_and_grad_buffer.py:\d+\)"),
        (2, score, r"all_reduce \(core/tensor_parallel/mappings.py:\d+\)"),
    ],
)
def test_a_rank_that_hangs_is_missed_by_name(
    tensor: int, work: Callable[[Topology, Actor], None], collective: str
) -> None:
    config = ParallelConfig(tensor=tensor, collective_timeout_s=TIMEOUT_S)
    found, _ = run_ranks(2, run_with_one_rank, config, work, False)
    assert found is not None and found[0] == "LostRankError"
    pattern = rf"rank 0 of 2 on \S+: {collective} timed out after 5 s in total > train, after round 1\. {TAIL}"
    assert re.fullmatch(pattern, found[1]), found[1]


def test_a_rank_that_has_ended_is_missed_at_once() -> None:
    config = ParallelConfig(collective_timeout_s=60.0)
    found, _ = run_ranks(2, run_with_one_rank, config, agree, True)
    assert found is not None and found[0] == "LostRankError"
    assert re.match(r"rank 0 of 2 on \S+: all_reduce \(\S+\) lost the other side in total > train, after", found[1])


def test_other_faults_stay_what_they_are() -> None:
    found, _ = run_ranks(2, run_with_one_rank, ParallelConfig(collective_timeout_s=TIMEOUT_S), fail, True)
    assert found == ("RuntimeError", "another fault")
    found, _ = run_ranks(2, run_with_one_rank, ParallelConfig(collective_timeout_s=TIMEOUT_S), fail_of_its_own, True)
    assert found == ("JudgeFaultError", "the judge has timed out; see /runs/timeout_1")
