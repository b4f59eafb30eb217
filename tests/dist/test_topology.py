import os
import time

import pytest
import torch
import torch.distributed as dist

from seif_nemo.config.parallel import Backend, ParallelConfig
from seif_nemo.parallel.collectives import speaks_of_refusal
from seif_nemo.parallel.topology import Topology, build_topology, shutdown
from tests.dist.harness import RankError, run_ranks


def _place(topology: Topology) -> dict[str, int]:
    assert topology.is_first_stage == (topology.pipeline_rank == 0)
    assert topology.is_last_stage == (topology.pipeline_rank == topology.pipeline - 1)
    assert topology.is_main == (topology.rank == 0)
    assert topology.device == torch.device("cpu")
    sums = {}
    for name in ("tensor", "pipeline", "data", "context", "replica", "world"):
        value = torch.tensor([2**topology.rank])
        dist.all_reduce(value, group=getattr(topology, f"{name}_group"))
        sums[name] = int(value)
    return {
        **sums,
        "tensor_rank": topology.tensor_rank,
        "pipeline_rank": topology.pipeline_rank,
        "data_rank": topology.data_rank,
        "context_rank": topology.context_rank,
        "replica_rank": topology.replica_rank,
        "last": topology.last_stage_rank,
        "data_size": topology.data,
    }


def _places() -> list[dict[str, int]]:
    places = []
    for config in (
        ParallelConfig(tensor=2, pipeline=2),
        ParallelConfig(pipeline=4),
        ParallelConfig(tensor=2),
        ParallelConfig(context=2),
    ):
        topology = build_topology(config, seed=3, threads=1)
        assert torch.get_num_threads() == 1
        places.append(_place(topology))
        shutdown(topology)
    return places


def _waits_alone() -> float:
    topology = build_topology(ParallelConfig(collective_timeout_s=1.0), seed=1, threads=1)
    start = time.monotonic()
    if topology.rank == 0:
        with pytest.raises(RuntimeError, match=r"(?i)timed? ?out"):
            dist.all_reduce(torch.ones(1), group=topology.data_group)
    else:
        time.sleep(3)
    return time.monotonic() - start


def _speakers(refusing: list[int]) -> bool | None:
    """Whether this rank speaks; None for a rank without a fault."""
    topology = build_topology(ParallelConfig(), seed=1, threads=1)
    return speaks_of_refusal(topology, wait_s=0.5) if topology.rank in refusing else None


def _alone() -> list[int]:
    for name in [name for name in os.environ if name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")]:
        del os.environ[name]
    sizes = []
    for _ in range(2):
        topology = build_topology(ParallelConfig(), seed=1, threads=1)
        value = torch.ones(1)
        dist.all_reduce(value)
        sizes.append(topology.world_size * int(value))
        shutdown(topology)
    os.environ["RANK"] = "0"
    with pytest.raises(ValueError, match="the environment has RANK but not WORLD_SIZE, MASTER_ADDR, MASTER_PORT"):
        build_topology(ParallelConfig(), seed=1, threads=1)
    return sizes


def _wrong_division() -> None:
    build_topology(ParallelConfig(tensor=2, pipeline=2), seed=1, threads=1)


def _needs_cuda() -> None:
    build_topology(ParallelConfig(backend=Backend.nccl), seed=1, threads=1)


def test_groups_and_ranks_of_four_processes() -> None:
    per_rank = run_ranks(4, _places)
    # Rank r of TP2 x PP2: tensor neighbours {0,1} {2,3}, pipelines {0,2} {1,3}. Sums are of 2**rank.
    assert [place[0] for place in per_rank] == [
        {
            "tensor": 3 if rank < 2 else 12,
            "pipeline": 5 if rank % 2 == 0 else 10,
            "data": 2**rank,
            "context": 2**rank,
            "replica": 2**rank,
            "world": 15,
            "tensor_rank": rank % 2,
            "pipeline_rank": rank // 2,
            "data_rank": 0,
            "context_rank": 0,
            "replica_rank": 0,
            "last": 2 + rank % 2,
            "data_size": 1,
        }
        for rank in range(4)
    ]
    assert [place[1]["pipeline_rank"] for place in per_rank] == [0, 1, 2, 3]
    assert {place[1]["last"] for place in per_rank} == {3}
    assert [place[2]["data_rank"] for place in per_rank] == [0, 0, 1, 1]
    assert [place[2]["data"] for place in per_rank] == [5, 10, 5, 10]
    # CP2 x DP2: context neighbours are adjacent.
    assert [place[3]["context"] for place in per_rank] == [3, 3, 12, 12]
    assert [place[3]["data"] for place in per_rank] == [5, 10, 5, 10]
    assert {place[3]["replica"] for place in per_rank} == {15}
    assert [place[3]["replica_rank"] for place in per_rank] == [0, 1, 2, 3]


def test_one_process_needs_no_environment_and_half_of_one_is_an_error() -> None:
    assert run_ranks(1, _alone) == [[1, 1]]


def test_collectives_time_out() -> None:
    waited = run_ranks(2, _waits_alone)[0]
    assert 0.9 < waited < 2.9


def test_errors_name_the_key_and_the_nearest_choices() -> None:
    sizes = r"parallel\.tensor=2 times parallel\.context=1 times parallel\.pipeline=2 is 4"
    with pytest.raises(RankError, match=rf"{sizes}, which does not divide the 6"):
        run_ranks(6, _wrong_division)
    with pytest.raises(RankError, match=r"choose a product of 2 or 3, or start 4 or 8 ranks"):
        run_ranks(6, _wrong_division)
    if not torch.cuda.is_available():
        with pytest.raises(RankError, match=r"ValueError: parallel\.backend=nccl needs a CUDA device"):
            run_ranks(1, _needs_cuda)


def test_bad_input_is_named_once_and_by_another_rank_if_the_main_one_does_not_see_it() -> None:
    assert run_ranks(3, _speakers, [0, 1, 2]) == [True, False, False]
    assert run_ranks(3, _speakers, [2]) == [None, None, True]
