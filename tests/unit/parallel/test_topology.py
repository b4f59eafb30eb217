import pytest

from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.parallel.topology import check_expert_division


@pytest.mark.parametrize(
    "tensor, expert, expert_tensor, stage_size",
    [(1, 1, None, 1), (2, 1, None, 6), (1, 4, None, 8), (2, 2, 1, 2), (2, 8, 1, 8), (2, 2, 4, 8), (4, 2, 1, 4)],
)
def test_experts_that_can_be_shared_out(tensor: int, expert: int, expert_tensor: int | None, stage_size: int) -> None:
    check_expert_division(ParallelConfig(tensor=tensor, expert=expert, expert_tensor=expert_tensor), stage_size)


@pytest.mark.parametrize(
    "tensor, expert, expert_tensor, stage_size, message",
    [
        (1, 3, None, 4, r"parallel\.expert=3 times 1 .* the 4 ranks .*: choose 2 or 4"),
        (2, 4, None, 4, r"parallel\.expert=4 times 2 .*: choose 1 or 2"),
        (2, 3, 1, 6, r"parallel\.expert=3 times 1 .* multiple or a divisor of parallel\.tensor=2: choose 1 or 2"),
        (1, 2, 3, 4, r"parallel\.expert_tensor=3 does not divide the 4 ranks of a pipeline stage: choose 2 or 4"),
    ],
)
def test_experts_that_cannot_be_shared_out(
    tensor: int, expert: int, expert_tensor: int | None, stage_size: int, message: str
) -> None:
    config = ParallelConfig(tensor=tensor, expert=expert, expert_tensor=expert_tensor)
    with pytest.raises(ValueError, match=message):
        check_expert_division(config, stage_size)


def test_settings_of_experts_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match=r"parallel\.expert=0 must be at least 1"):
        ParallelConfig(expert=0)
    with pytest.raises(
        ValueError, match=r"parallel\.expert_tensor=1 needs parallel\.expert of at least 2: choose null"
    ):
        ParallelConfig(tensor=2, expert_tensor=1)
