"""Copies in memory and in files: values, who is in memory, order of the background's work, damage, full disks."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from seif_nemo.parallel.tensor_sums import flat_sums
from seif_nemo.weights import host_copies
from seif_nemo.weights.host_copies import Checks, HostCopies, WeightDigestError, slots_within
from seif_nemo.weights.transfer import Buffers, exchange, transfer

LIKE = [torch.zeros(1000), torch.zeros(3, dtype=torch.bfloat16), torch.zeros(0), torch.zeros(5)]


def _of(value: float) -> list[torch.Tensor]:
    return [torch.full_like(buffer, value) for buffer in LIKE]


@pytest.fixture
def worker() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def copies(worker: ThreadPoolExecutor, tmp_path: Path) -> HostCopies:
    """Room for two in memory; "a", "b" and "c" were written, in this order."""
    checks = Checks(flat_sums, lambda _expected, _found: "something")
    copies = HostCopies(LIKE, checks, worker, slots=2, spill_dir=tmp_path)
    for number, name in enumerate("abc"):
        copies.write(name, _of(number + 1))
    return copies


def _values(buffers: Buffers) -> set[float]:
    return {float(value) for buffer in buffers for value in buffer}


def test_the_one_that_was_not_used_for_longest_goes_to_disk_and_comes_back(copies: HostCopies) -> None:
    assert copies.in_memory == ("b", "c")
    assert _values(copies.read("a")) == {1}
    assert copies.in_memory == ("c", "a")
    assert _values(copies.read("b")) == {2}
    assert _values(copies.read("a")) == {1}
    assert _values(copies.read("c")) == {3}
    assert copies.in_memory == ("a", "c")


def test_what_was_written_anew_is_what_comes_back(copies: HostCopies) -> None:
    assert _values(copies.read("a")) == {1}  # its file is current now
    copies.write("a", _of(9))
    copies.read("b")
    copies.read("c")
    assert _values(copies.read("a")) == {9}
    copies.duplicate("c", "d")
    assert (_values(copies.read("d")), _values(copies.read("c"))) == ({3}, {3})


def test_memory_is_not_overwritten_before_it_is_on_disk(copies: HostCopies, worker: ThreadPoolExecutor) -> None:
    for name in "bca":  # whatever the background has to do takes its time
        worker.submit(threading.Event().wait, 0.05)
        copies.write(name, _of(ord(name)))
    for name in "bca":
        assert _values(copies.read(name)) == {ord(name)}


def test_a_prefetched_copy_is_in_memory_when_it_is_read(copies: HostCopies) -> None:
    copies.prefetch("a")
    assert copies.in_memory == ("c", "a")
    copies._wait_all()
    memory = copies._copies["a"].memory
    assert memory is not None and _values(memory) == {1}
    assert copies.read("a") is memory


def test_damage_in_a_file_is_seen(copies: HostCopies) -> None:
    copies._wait_all()
    file = copies._copies["a"].file
    assert file is not None
    file._buffers[1][2] = 7
    with pytest.raises(WeightDigestError, match="host copy of resident a is damaged: something"):
        copies.read("a")
    assert _values(copies.read("b")) == {2}


def test_a_disk_without_room_is_an_error_and_nothing_is_lost(
    copies: HostCopies, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(host_copies.os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        copies.read("a")  # "b" would need a file
    monkeypatch.undo()
    assert [_values(copies.read(name)) for name in "abc"] == [{1}, {2}, {3}]


@pytest.mark.parametrize("numel", [0, 1, 300_000])
def test_exchange_swaps_chunk_by_chunk(numel: int) -> None:
    model, incoming = [torch.randn(numel), torch.ones(3).bfloat16()], [torch.randn(numel), torch.zeros(3).bfloat16()]
    old, outgoing = [buffer.clone() for buffer in model], [torch.empty_like(buffer) for buffer in model]
    exchange(model, outgoing, incoming)
    assert all(torch.equal(a, b) for a, b in zip(outgoing, old, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(model, incoming, strict=True))


def test_buffers_of_another_kind_are_no_targets() -> None:
    with pytest.raises(AssertionError):
        transfer([torch.zeros(2)], [torch.zeros(2, dtype=torch.bfloat16)])


@pytest.mark.parametrize(
    ("gib", "slots"),
    [
        (10.0, (2, 2)),
        (12.9, (4, 2)),  # weights first
        (13.0, (5, 2)),
        (17.0, (5, 3)),
        (99.0, (5, 3)),
    ],
)
def test_host_memory_is_shared_out(gib: float, slots: tuple[int, int], tmp_path: Path) -> None:
    found = slots_within(gib, tmp_path, weights_gib=1.0, moments_gib=4.0, residents=5, trained=3)
    assert (found.weights, found.moments) == slots


def test_too_little_host_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"roles\.host_memory_gib=9\.9 has no room.*10 GiB.*choose at least 10\.0"):
        slots_within(9.9, tmp_path, weights_gib=1.0, moments_gib=4.0, residents=5, trained=3)
