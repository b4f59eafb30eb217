import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seif_nemo.weights.hf_mapping import Columns, Piece, QueryKeyValue, Replicated, Rows, Vocabulary


class InMemory:
    """A checkpoint whose every tensor counts upwards, so that each element is told from all others."""

    def __init__(self, piece: Piece) -> None:
        self.tensors: dict[str, Tensor] = {}
        start = 1
        for name, shape in piece.shapes().items():
            count = torch.Size(shape).numel()
            self.tensors[name] = torch.arange(start, start + count, dtype=torch.float32).view(shape)
            start += count

    def read(self, name: str, rows: slice, columns: slice | None = None) -> Tensor:
        part = self.tensors[name][rows]
        return part if columns is None else part[:, columns]


def _round_trip(piece: Piece, tensor: int) -> None:
    files = InMemory(piece)
    shards = [piece.load(files, rank, tensor) for rank in range(tensor)]
    assert len({tuple(shard.shape) for shard in shards}) == 1
    below = torch.cat([files.tensors[name].view(shape[0], -1) for name, shape in piece.shapes().items()])
    for rank, shard in enumerate(shards):
        place, flat = piece.place(rank, tensor), shard.view(len(shard), -1)
        columns = slice(place.first_column, place.first_column + flat.shape[1])
        assert torch.equal(torch.where(place.rows[:, None] < 0, 0, below[place.rows, columns]), flat)
    merged = piece.merge(shards)
    assert list(merged) == list(files.tensors)
    for name, expected in files.tensors.items():
        assert torch.equal(merged[name], expected), name


def test_query_key_value_are_interleaved_by_group() -> None:
    piece = QueryKeyValue(("q", "k", "v"), groups=2, heads_per_group=2, head_dim=1, columns=None)
    files = InMemory(piece)  # q = 1 2 3 4, k = 5 6, v = 7 8
    assert piece.load(files, 0, 1).tolist() == [1, 2, 5, 7, 3, 4, 6, 8]
    assert piece.load(files, 1, 2).tolist() == [3, 4, 6, 8]
    # More ranks than groups: megatron-core divides the rows evenly, within a group.
    assert [piece.load(files, rank, 4).tolist() for rank in range(4)] == [[1, 2], [5, 7], [3, 4], [6, 8]]


def test_gate_and_up_of_one_rank_lie_together() -> None:
    piece = Rows(("gate", "up"), rows=4, columns=1)
    files = InMemory(piece)  # gate = 1 2 3 4, up = 5 6 7 8
    assert [piece.load(files, rank, 2).flatten().tolist() for rank in range(2)] == [[1, 2, 5, 6], [3, 4, 7, 8]]


def test_vocabulary_is_padded_with_zeros_on_the_last_ranks() -> None:
    piece = Vocabulary("embed", rows=5, padded=8, columns=1)
    files = InMemory(piece)
    shards = [piece.load(files, rank, 4).flatten().tolist() for rank in range(4)]
    assert shards == [[1, 2], [3, 4], [5, 0], [0, 0]]


def test_columns_are_divided() -> None:
    piece = Columns("down", rows=2, columns=4)
    assert piece.load(InMemory(piece), 1, 2).tolist() == [[3, 4], [7, 8]]


@settings(max_examples=60, deadline=None)
@given(
    tensor=st.sampled_from([1, 2, 3, 4, 8]),
    units=st.integers(1, 3),
    heads_per_group=st.integers(1, 4),
    head_dim=st.integers(1, 5),
    columns=st.integers(1, 4),
    missing_rows=st.integers(0, 20),
)
def test_every_piece_is_exactly_invertible(
    tensor: int, units: int, heads_per_group: int, head_dim: int, columns: int, missing_rows: int
) -> None:
    names = ("q", "k", "v")
    _round_trip(Replicated("norm", (columns,)), tensor)
    _round_trip(Replicated("router", (units, columns)), tensor)
    padded = tensor * units * 8
    _round_trip(Vocabulary("embed", max(1, padded - missing_rows), padded, columns), tensor)
    _round_trip(Rows(("gate", "up"), tensor * units, columns), tensor)
    _round_trip(Columns("down", columns, tensor * units), tensor)
    for width in (columns, None):
        _round_trip(QueryKeyValue(names, tensor * units, heads_per_group, head_dim, width), tensor)
        if tensor % 2 == 0:  # fewer groups than ranks: the rows of a group must divide
            one_group = QueryKeyValue(names, tensor // 2, heads_per_group, 2 * head_dim, width)
            _round_trip(one_group, tensor)
