from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.checkpoint.metadata import BytesStorageMetadata

from seif_nemo.checkpointing.files import Index, Written, index_of, write_pieces
from seif_nemo.checkpointing.manifest import CheckpointError
from seif_nemo.checkpointing.pieces import Piece, flat_range_boxes
from seif_nemo.checkpointing.staging import Staging


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_boxes_are_the_range_in_its_order(shape, data):
    size = prod(shape)
    low = data.draw(st.integers(0, size - 1))
    high = data.draw(st.integers(low + 1, size))
    numbers = np.arange(size).reshape(shape)
    found = []
    boxes = list(flat_range_boxes(tuple(shape), low, high))
    for corner, box in boxes:
        found += numbers[tuple(slice(a, a + b) for a, b in zip(corner, box, strict=True))].ravel().tolist()
    assert found == list(range(low, high))
    assert len(boxes) <= 2 * len(shape) - 1


def piece(values, *, key="w", offset=(0, 0), shape=(4, 3)):
    return Piece(key, shape, offset, tuple(values.shape), values)


def test_staged_values_stay_what_they_were_and_are_written_alone(tmp_path):
    weights = torch.arange(12.0).reshape(4, 3)
    pieces = [piece(weights[:2]), piece(weights[2:].to(torch.bfloat16), key="b")]
    staging = Staging(pieces)
    staging.copy(pieces)
    weights.zero_()
    assert staging.tensors[0].tolist() == [[0, 1, 2], [3, 4, 5]]
    written = write_pieces(tmp_path / "f", pieces, staging.tensors, {"scale": b"eight"})
    scale = written.pop()
    assert (tmp_path / "f").read_bytes()[scale.start : scale.start + scale.length] == b"eight"
    assert index_of([[scale]]).state_dict_metadata["scale"] == BytesStorageMetadata()
    for number, each in enumerate(written):
        with (tmp_path / "f").open("rb") as file:
            file.seek(each.start)
            (tmp_path / "one").write_bytes(file.read(each.length))
        read = torch.load(tmp_path / "one", weights_only=True)
        assert torch.equal(read, staging.tensors[number]) and read.dtype == pieces[number].source.dtype
        assert each.length < 2048  # not the whole buffer
    assert written[1].start == written[0].length


def lies(offset, shape, *, key="w", whole=(4, 3)):
    return Written(key, torch.float32, whole, offset, shape, "f", 0, 1)


SCALE = Written("s", None, (), (), (), "f", 0, 1)


@pytest.mark.parametrize(
    "parts, message",
    [
        ([[lies((0, 0), (2, 3))], [lies((2, 0), (1, 3))]], "w: 9 elements are written of a tensor that has 12"),
        ([[lies((0, 0), (2, 3))], [lies((0, 0), (2, 3))]], r"w: two ranks disagree about the piece at \(0, 0\)"),
        ([[lies((0, 0), (2, 3))], [lies((2, 0), (2, 3), whole=(5, 3))]], "w: two ranks disagree about the piece"),
        ([[SCALE], [SCALE]], "s: two ranks write it"),
    ],
)
def test_an_index_has_each_element_once(parts, message):
    with pytest.raises(CheckpointError, match=message):
        index_of(parts)
    whole = index_of([[lies((0, 0), (2, 3))], [lies((2, 0), (2, 3))]])
    assert [tuple(chunk.offsets) for chunk in whole.state_dict_metadata["w"].chunks] == [(0, 0), (2, 0)]


def test_an_index_is_made_anew_only_when_a_rank_has_news():
    first, second = [lies((0, 0), (2, 3))], [lies((2, 0), (2, 3))]
    main, other = Index(), Index()
    data = main.data([main.news(first), other.news(second)])
    assert main.data([main.news(list(first)), other.news(list(second))]) is data
    moved = [Written("w", torch.float32, (4, 3), (2, 0), (2, 3), "f", 7, 1)]
    news = other.news(moved)
    assert news == moved
    again = main.data([main.news(first), news])
    assert again != data and again == Index().data([first, moved])
