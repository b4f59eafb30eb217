from hypothesis import given, settings
from hypothesis import strategies as st

from seif_nemo.generation.slots import SlotTable


def test_rows_are_filled_refilled_and_narrowed() -> None:
    table = SlotTable(8, list(range(100, 110)))
    admission = table.admit()
    assert admission is not None
    assert admission.rows.tolist() == list(range(8))
    assert admission.requests.tolist() == list(range(100, 108))
    assert table.admit() is None  # no dead row
    table.retire(admission.rows[[2]])
    refill = table.admit()  # one of eight is dead: worth it
    assert refill is not None
    assert (refill.rows.tolist(), refill.requests.tolist()) == ([2], [108])
    table.retire(admission.rows[[0, 6]])
    refill = table.admit()
    assert refill is not None
    assert (refill.rows.tolist(), refill.requests.tolist(), table.num_waiting) == ([0], [109], 0)
    assert table.compact() is None  # 7 of 8 live
    table.retire(refill.rows)
    moves = table.compact()  # rows 1 2 3 4 5 7 live; 7 goes to 0
    assert moves is not None
    assert (moves.sources.tolist(), moves.targets.tolist(), table.width) == ([7], [0], 6)
    assert table.request_R[:6].tolist() == [107, 101, 108, 103, 104, 105]


def test_a_refill_waits_for_a_worthwhile_share_of_dead_rows() -> None:
    table = SlotTable(32, list(range(100)))
    table.admit()
    for row in range(3):
        table.retire(table.live_R.nonzero()[0][[row]])
        assert table.admit() is None
        assert table.compact() is None  # as long as prompts wait
    table.retire(table.live_R.nonzero()[0][[0]])
    refill = table.admit()
    assert refill is not None
    assert len(refill.rows) == 4


def test_a_limit_takes_fewer_but_never_none() -> None:
    table = SlotTable(4, [5, 6, 7])
    first = table.admit(limit=2)
    assert first is not None
    assert first.requests.tolist() == [5, 6]
    assert table.next_waiting(5).tolist() == [7]
    second = table.admit(limit=0)
    assert second is not None
    assert (second.rows.tolist(), second.requests.tolist()) == ([2], [7])


@settings(deadline=None, max_examples=200)
@given(num_rows=st.integers(1, 12), lifetimes=st.lists(st.integers(1, 15), max_size=40), limit=st.integers(1, 12))
def test_every_request_runs_its_lifetime_once_whatever_moves(num_rows: int, lifetimes: list[int], limit: int) -> None:
    """A row's content (request, steps so far) is carried as an engine carries it; nothing is lost, mixed or late."""
    table = SlotTable(num_rows, list(range(len(lifetimes))))
    content: list[list[int]] = [[-1, 0] for _ in range(num_rows)]
    finished: list[int] = []
    steps = 0
    while not table.finished:
        steps += 1
        assert steps <= sum(lifetimes)  # every step serves at least one live row
        admission = table.admit(limit)
        if admission is not None:
            assert len(admission.rows) <= limit
            for row, request in zip(admission.rows.tolist(), admission.requests.tolist(), strict=True):
                content[row] = [request, 0]
            served = admission.rows
        else:
            served = table.live_R.nonzero()[0]
        assert table.live_R[table.width :].sum() == 0
        done = []
        for row in served.tolist():
            assert content[row][0] == table.request_R[row]
            content[row][1] += 1
            if content[row][1] == lifetimes[content[row][0]]:
                done.append(row)
                finished.append(content[row][0])
        table.retire(served[[row in done for row in served.tolist()]])
        moves = table.compact()
        if moves is not None:
            for source, target in zip(moves.sources.tolist(), moves.targets.tolist(), strict=True):
                content[target] = content[source]
            assert table.num_live == table.width
    assert sorted(finished) == list(range(len(lifetimes)))
