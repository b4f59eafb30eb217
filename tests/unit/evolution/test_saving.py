"""When a saved step gets its line of the ledger, and going back where one was damaged."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from seif_nemo.checkpointing.background import Finished
from seif_nemo.checkpointing.manifest import CheckpointError
from seif_nemo.config.checkpoint import CheckpointConfig, Resume
from seif_nemo.evolution.ledger import Ledger, latest_checkpoints, read_ledger, take_attempt
from seif_nemo.evolution.paths import RunPaths
from seif_nemo.evolution.recovery import recover
from seif_nemo.evolution.saving import Saver
from seif_nemo.types.records import Phase, UnitKey
from seif_nemo.types.residents import Resident

KEY = UnitKey(1, Phase.FOLLOWER, 0)
FILES = (SimpleNamespace(name="upcoming.parquet", digest="u"), SimpleNamespace(name="common.pt", digest="c"))


class Store:
    """Writes when it is told to: `finish` is what the thread does, and `take` sees it."""

    def __init__(self):
        self.is_busy, self.staged, self.published, self.result, self.pruned = False, [], None, None, []

    def stage(self, trainable, bank, path, write_beside=None):
        assert not self.is_busy
        self.staged.append(path)

    def start(self, published):
        self.is_busy, self.published, self.result = True, published, None

    def finish(self):
        self.result = [SimpleNamespace(path=path, manifest=SimpleNamespace(files=FILES)) for path in self.staged]
        self.staged = []
        self.published(self.result)

    def take(self, *, wait):
        if self.result is None and wait:
            self.finish()
        if self.result is None:
            return None
        self.is_busy = False
        return Finished(self.result, 1.5)

    def prune_here(self, directory, *, keep, newest):
        assert newest.parent == directory
        self.pruned.append((directory.name, keep))


class Bank:
    def digest(self, role):
        return f"digest of {role}"

    def resident(self, role):
        return nullcontext()


def make(tmp_path, **config):
    attempt = take_attempt(tmp_path / "attempts", {})
    ledger = Ledger(tmp_path / "ledger.jsonl", attempt=attempt, writable=True)
    store = Store()
    return Saver(store, ledger, RunPaths(tmp_path), CheckpointConfig(**config)), store, ledger


def steps(tmp_path):
    return [entry.key.step for entry in read_ledger(tmp_path / "ledger.jsonl")]


@pytest.mark.parametrize("measured_first", [True, False])
def test_a_line_comes_after_both_the_checkpoint_and_the_metrics(tmp_path, measured_first):
    saver, store, ledger = make(tmp_path, keep=3)
    roles = [Resident.FOLLOWER, Resident.FOLLOWER_CRITIC]
    saver.begin(KEY, None, Bank(), roles, beside=("upcoming.parquet", lambda path: None))
    assert [path.relative_to(tmp_path).as_posix() for path in store.staged] == [
        "rounds/01/follower/critic/step-0000",
        "rounds/01/follower/step-0000",
    ]
    assert saver.is_busy and steps(tmp_path) == []
    if measured_first:
        assert not saver.measured(KEY)
        assert steps(tmp_path) == []
        store.finish()
    else:
        store.finish()
        assert steps(tmp_path) == []
        assert not saver.measured(KEY)
        assert steps(tmp_path) == [0], "the foreground was second"
    assert steps(tmp_path) == [0]
    assert store.pruned == [("critic", 3), ("follower", 3)]
    assert saver.is_busy, "other ranks do not know yet"
    saver.settle(wait=False)
    assert not saver.is_busy
    entry = ledger.find(1, Phase.FOLLOWER, 0)
    assert entry == read_ledger(tmp_path / "ledger.jsonl")[0]
    assert entry.digests == {
        "follower": "digest of follower",
        "follower_critic": "digest of follower_critic",
        "upcoming.parquet": "u",
    }
    assert entry.checkpoint == "rounds/01/follower/step-0000"
    values = saver.values()
    assert values["save/write_s"] == 1.5 and values["save/stall_s"] >= 0 and saver.values() == {}


def test_a_second_save_waits_for_the_first_and_the_order_stays(tmp_path):
    saver, store, _ = make(tmp_path)
    for step in range(3):
        saver.begin(UnitKey(1, Phase.FOLLOWER, step), None, Bank(), [Resident.FOLLOWER])
        assert steps(tmp_path) == list(range(step))
        assert not saver.measured(UnitKey(1, Phase.FOLLOWER, step))
    assert "save/wait_s" in saver.values()
    saver.settle(wait=True)
    assert steps(tmp_path) == [0, 1, 2]
    assert store.staged == []


def test_a_synchronous_save_is_recorded_when_it_is_measured(tmp_path):
    saver, _, _ = make(tmp_path, asynchronous=False)
    saver.begin(KEY, None, Bank(), [Resident.FOLLOWER])
    assert steps(tmp_path) == []
    assert saver.measured(KEY)
    assert steps(tmp_path) == [0] and not saver.is_busy


# Going back


def run_directory(tmp_path: Path):
    """Round 1 is done, and of round 2 two Instructor steps, the synthesis and three Follower steps."""
    ledger = Ledger(tmp_path / "ledger.jsonl", attempt=take_attempt(tmp_path / "attempts", {}), writable=True)

    def add(round, phase, step=0, role=None):
        checkpoint = None
        if role is not None:
            path = RunPaths(tmp_path).checkpoint(round, phase, step)
            path.mkdir(parents=True)
            checkpoint = path.relative_to(tmp_path).as_posix()
        ledger.append(UnitKey(round, phase, step), digests={} if role is None else {role: "d"}, checkpoint=checkpoint)

    add(0, Phase.EVALUATION)
    for round in (1, 2):
        for step in range(2):
            add(round, Phase.INSTRUCTOR, step, "instructor")
        add(round, Phase.SYNTHESIS)
        for step in range(3):
            add(round, Phase.FOLLOWER, step, "follower")
        if round == 1:
            RunPaths(tmp_path).export(1).mkdir(parents=True)
            add(1, Phase.EVALUATION)
    RunPaths(tmp_path).checkpoint(2, Phase.FOLLOWER, 3).mkdir()  # renamed, and killed before its line
    return ledger


def recovered(tmp_path, damaged, *, resume=Resume.latest_good, rounds=3):
    """(entries that still count, what was moved, what the metrics say)."""
    ledger = run_directory(tmp_path)
    moved, notes = [], {}

    def verify(path, *, expect_digest):
        assert expect_digest == "d"
        name = path.relative_to(tmp_path).as_posix()
        if not path.exists() or name in damaged:
            raise CheckpointError(f"{name}/__0_0.distcp is damaged")

    def set_aside(moves):
        for source, target in moves.items():
            target.parent.mkdir(exist_ok=True)
            source.rename(target)
            moved.append(source.relative_to(tmp_path).as_posix())

    context = SimpleNamespace(
        settings=SimpleNamespace(checkpoint=CheckpointConfig(resume=resume), evolution=SimpleNamespace(rounds=rounds)),
        paths=RunPaths(tmp_path),
        ledger=ledger,
        checkpoints=SimpleNamespace(verify=verify, set_aside=set_aside),
        saver=SimpleNamespace(note=notes.update),
        critic=None,
    )
    recover(context)
    assert [e.key for e in ledger] == [e.key for e in read_ledger(tmp_path / "ledger.jsonl")]
    return [str(entry.key) for entry in ledger], moved, notes


def test_the_newest_whole_checkpoint_before_the_damage_is_gone_on_from(tmp_path, caplog):
    damaged = {"rounds/02/follower/step-0002"}
    before = len(list(run_directory(tmp_path / "x")))
    kept, moved, notes = recovered(tmp_path / "y", damaged)
    assert len(kept) == before - 1
    assert moved == ["rounds/02/follower/step-0002", "rounds/02/follower/step-0003"]
    assert (tmp_path / "y/rounds/02/follower/set-aside/step-0002.attempt-1").is_dir()
    assert notes == {"resume/superseded_units": 1.0}
    assert "rounds/02/follower/step-0002/__0_0.distcp is damaged" in caplog.text
    assert "1 units are done again" in caplog.text
    lines = (tmp_path / "y/ledger.jsonl").read_text().splitlines()
    assert len(lines) == before + 1  # history stays
    assert json.loads(lines[-1])["rewind"]["kept"] == before - 1
    assert latest_checkpoints(tmp_path / "y") == {
        Phase.INSTRUCTOR: tmp_path / "y/rounds/02/instructor/step-0001",
        Phase.FOLLOWER: tmp_path / "y/rounds/02/follower/step-0001",
    }


def test_what_was_made_with_a_damaged_role_is_made_again(tmp_path):
    kept, moved, notes = recovered(tmp_path, {"rounds/02/instructor/step-0001"})
    assert kept[-1] == str(UnitKey(2, Phase.INSTRUCTOR, 0))
    assert notes == {"resume/superseded_units": 5.0}
    assert moved[:4] == ["rounds/02/instructor/step-0001", *(f"rounds/02/follower/step-000{i}" for i in range(3))]
    assert moved[4:] == ["rounds/02/follower/step-0003"]


def test_damage_to_the_round_before_goes_back_into_it(tmp_path):
    kept, moved, _ = recovered(tmp_path, {"rounds/01/follower/step-0002", "rounds/01/follower/step-0001"})
    assert kept[-1] == str(UnitKey(1, Phase.FOLLOWER, 0))
    assert "export/follower-01" in moved, "the export of weights that no longer count"
    assert len(moved) == 2 + 1 + 2 + 3 + 1


def test_without_any_whole_one_it_starts_again(tmp_path):
    every = {f"rounds/0{r}/{p}/step-000{s}" for r in (1, 2) for p in ("instructor", "follower") for s in range(3)}
    kept, _, _ = recovered(tmp_path, every)
    assert kept == [str(UnitKey(0, Phase.EVALUATION, 0))]


@pytest.mark.parametrize(
    "damaged, resume", [(set(), Resume.latest_good), ({"rounds/02/follower/step-0002"}, Resume.strict)]
)
def test_nothing_changes_where_nothing_has_to(tmp_path, damaged, resume):
    kept, moved, notes = recovered(tmp_path, damaged, resume=resume)
    assert len(kept) == 14 and not moved and not notes
