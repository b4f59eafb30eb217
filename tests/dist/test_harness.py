import os
import time

import pytest
import torch
import torch.distributed as dist

from tests.dist.harness import RankError, run_ranks


def _sum_of_ranks(offset: int) -> tuple[int, int]:
    dist.init_process_group("gloo")
    value = torch.tensor([dist.get_rank() + offset])
    dist.all_reduce(value)
    dist.destroy_process_group()
    return int(os.environ["RANK"]), int(value)


def _one_fails() -> None:
    if os.environ["RANK"] == "1":
        raise ValueError("rank one is broken")
    time.sleep(60)


def _one_dies() -> None:
    if os.environ["RANK"] == "0":
        os._exit(7)
    time.sleep(60)


def _sleeps() -> None:
    time.sleep(60)


def test_ranks_form_one_world_and_answers_come_in_order() -> None:
    assert run_ranks(3, _sum_of_ranks, 10) == [(0, 33), (1, 33), (2, 33)]


def test_failures_end_the_whole_world_at_once() -> None:
    start = time.monotonic()
    with pytest.raises(RankError, match=r"rank 1 raised:(.|\n)*ValueError: rank one is broken"):
        run_ranks(2, _one_fails)
    with pytest.raises(RankError, match="rank 0 died with exit code 7"):
        run_ranks(2, _one_dies)
    with pytest.raises(TimeoutError, match=r"ranks \[0\] of 1"):
        run_ranks(1, _sleeps, timeout_s=1.5)
    assert time.monotonic() - start < 30
