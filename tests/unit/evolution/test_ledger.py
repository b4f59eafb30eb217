import json
import os
import threading

import pytest

from seif_nemo.evolution.ledger import FencedOutError, Ledger, newest_attempt, read_ledger, take_attempt
from seif_nemo.types.records import Phase, UnitKey


def _ledger(run_dir, *, writable=True):
    attempt = take_attempt(run_dir / "attempts", {"host": "a"})
    return Ledger(run_dir / "ledger.jsonl", attempt=attempt, writable=writable)


def test_a_new_attempt_reads_what_the_old_one_wrote(tmp_path):
    first = _ledger(tmp_path)
    first.append(UnitKey(1, Phase.INSTRUCTOR, 0), digests={"instructor": "aa"}, checkpoint="rounds/01/instructor/0")
    first.append(UnitKey(1, Phase.INSTRUCTOR, 1), digests={"instructor": "bb"}, checkpoint="rounds/01/instructor/1")
    second = _ledger(tmp_path)
    assert newest_attempt(tmp_path / "attempts") == 2
    assert json.loads((tmp_path / "attempts" / "0002.json").read_text()) == {"host": "a"}
    assert [(e.key.step, e.attempt, e.digests["instructor"]) for e in second] == [(0, 1, "aa"), (1, 1, "bb")]
    assert second.next_step(1, Phase.INSTRUCTOR) == 2
    assert second.next_step(1, Phase.FOLLOWER) == 0
    assert second.is_done(1, Phase.INSTRUCTOR, 1) and not second.is_done(1, Phase.INSTRUCTOR, 2)


def test_a_line_for_a_later_step_covers_the_steps_before_it(tmp_path):
    ledger = _ledger(tmp_path)
    ledger.append(UnitKey(1, Phase.FOLLOWER, 4), digests={}, checkpoint="c")
    assert ledger.next_step(1, Phase.FOLLOWER) == 5


def test_last_checkpoint_looks_at_rounds_up_to_the_given_one(tmp_path):
    ledger = _ledger(tmp_path)
    for round, step in ((1, 0), (1, 1), (2, 0)):
        ledger.append(UnitKey(round, Phase.FOLLOWER, step), digests={}, checkpoint=f"{round}-{step}")
    ledger.append(UnitKey(2, Phase.EVALUATION, 0), digests={})
    found = {until: ledger.last_checkpoint(Phase.FOLLOWER, until_round=until) for until in (0, 1, 2, 3)}
    assert {until: entry and entry.checkpoint for until, entry in found.items()} == {
        0: None,
        1: "1-1",
        2: "2-0",
        3: "2-0",
    }


def test_a_torn_last_line_is_cut_off_and_the_unit_is_redone(tmp_path):
    ledger = _ledger(tmp_path)
    ledger.append(UnitKey(0, Phase.EVALUATION, 0), digests={})
    path = tmp_path / "ledger.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"key": {"round": 1, "ph')
    again = _ledger(tmp_path)
    assert [entry.key for entry in again] == [UnitKey(0, Phase.EVALUATION, 0)]
    assert path.read_bytes() == whole
    again.append(UnitKey(1, Phase.PROBE_BEFORE, 0), digests={})
    assert [e.key.round for e in read_ledger(path)] == [0, 1]


def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(tmp_path):
    ledger = _ledger(tmp_path)
    ledger.append(UnitKey(0, Phase.EVALUATION, 0), digests={})
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b"{]\n" + path.read_bytes())
    with pytest.raises(ValueError, match=r"ledger\.jsonl, line 1: not a ledger entry"):
        _ledger(tmp_path)


def test_an_overtaken_attempt_can_write_nothing(tmp_path):
    old = _ledger(tmp_path)
    _ledger(tmp_path)
    with pytest.raises(FencedOutError, match="attempt 1 of this run was overtaken by attempt 2"):
        old.append(UnitKey(0, Phase.EVALUATION, 0), digests={})
    assert read_ledger(tmp_path / "ledger.jsonl") == []


def test_an_overtaken_attempt_takes_no_unfinished_line_for_a_torn_one(tmp_path):
    take_attempt(tmp_path / "attempts", {})
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b'{"key": {"round": 0, "ph')  # what the newer attempt is writing
    take_attempt(tmp_path / "attempts", {})
    with pytest.raises(FencedOutError, match="attempt 1 of this run was overtaken by attempt 2"):
        Ledger(path, attempt=1, writable=True)
    assert path.read_bytes() == b'{"key": {"round": 0, "ph'


def test_equal_entries_have_equal_digests(tmp_path):
    ledger = _ledger(tmp_path)
    empty = ledger.digest
    ledger.append(UnitKey(0, Phase.EVALUATION, 0), digests={"data.seeds": "aa"})
    assert ledger.digest != empty
    assert Ledger(tmp_path / "ledger.jsonl", attempt=1, writable=False).digest == ledger.digest


def test_attempts_that_start_together_get_numbers_of_their_own(tmp_path):
    numbers: list[int] = []
    start = threading.Barrier(8)

    def begin() -> None:
        start.wait()
        numbers.append(take_attempt(tmp_path / "attempts", {}))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 9))


def test_a_line_that_does_not_fit_on_the_disk_is_taken_back(tmp_path, monkeypatch):
    ledger = _ledger(tmp_path)
    ledger.append(UnitKey(0, Phase.EVALUATION, 0), digests={})
    before = (tmp_path / "ledger.jsonl").read_bytes()
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:10]))
    with pytest.raises(OSError, match=r"ledger\.jsonl: no room for another line"):
        ledger.append(UnitKey(1, Phase.PROBE_BEFORE, 0), digests={})
    assert (tmp_path / "ledger.jsonl").read_bytes() == before
    assert not ledger.is_done(1, Phase.PROBE_BEFORE)


def test_other_ranks_follow_without_writing(tmp_path):
    ledger = _ledger(tmp_path, writable=False)
    ledger.append(UnitKey(0, Phase.EVALUATION, 0), digests={})
    assert ledger.is_done(0, Phase.EVALUATION)
    assert not (tmp_path / "ledger.jsonl").exists()
