"""Saves that go on while the model changes: what is written is what was there, whatever happens meanwhile."""

import itertools
import os
import resource
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from seif_nemo.checkpointing import files as files_module
from seif_nemo.checkpointing import store as store_module
from seif_nemo.checkpointing.manifest import CheckpointError, WriteError
from seif_nemo.checkpointing.space import NoSpaceError
from seif_nemo.checkpointing.staging import Staging
from seif_nemo.checkpointing.store import CheckpointStore
from seif_nemo.config.checkpoint import CheckpointConfig
from seif_nemo.evolution.ledger import FencedOutError, Ledger, read_ledger, take_attempt
from seif_nemo.evolution.paths import RunPaths
from seif_nemo.evolution.saving import Saver
from seif_nemo.parallel.topology import shutdown
from seif_nemo.types.records import Phase, UnitKey
from seif_nemo.types.residents import Resident
from tests.dist.harness import run_ranks
from tests.dist.test_checkpointing import Layout, Run

WAIT_S = 60.0


@contextmanager
def held_writer() -> Iterator[threading.Event]:
    """Each rank's file is written once the event is set."""
    free, write = threading.Event(), store_module.write_pieces

    def write_later(*args: Any) -> Any:
        assert free.wait(WAIT_S)
        return write(*args)

    store_module.write_pieces = write_later
    try:
        yield free
    finally:
        free.set()
        store_module.write_pieces = write


class Attempt:
    """An attempt of a run whose Follower is in training, with its own store, ledger and saver."""

    def __init__(self, run: Run, root: Path, **config: Any) -> None:
        numbers = [take_attempt(root / "attempts", {}) if run.topology.is_main else 0]
        dist.broadcast_object_list(numbers)
        self.run = run
        self.paths = RunPaths(root)
        settings = CheckpointConfig(min_free_gib=0.0, **config)
        self.ledger = Ledger(self.paths.ledger, attempt=numbers[0], writable=run.topology.is_main)
        self.store = CheckpointStore(
            root, run.topology, check_fence=self.ledger.check_fence, write_timeout_s=settings.write_timeout_s
        )
        self.saver = Saver(self.store, self.ledger, self.paths, settings)

    def begin(self, step: int) -> None:
        self.saver.begin(key_of(step), self.run.trainable, self.run.bank, [Resident.FOLLOWER])

    def path(self, step: int) -> Path:
        return self.paths.checkpoint(1, Phase.FOLLOWER, step)

    def steps(self) -> list[int]:
        return [entry.key.step for entry in read_ledger(self.paths.ledger)]


def key_of(step: int) -> UnitKey:
    return UnitKey(1, Phase.FOLLOWER, step)


# What is written


def staged_addresses(store: CheckpointStore) -> list[int]:
    return [tensor.data_ptr() for _, staging in store._snapshots._stagings.values() for tensor in staging.tensors]


def save_while_training(root: Path) -> dict[str, Any]:
    run = Run(Layout(), root)
    attempt = Attempt(run, root, keep=5)
    found: dict[str, Any] = {"asked": [], "addresses": []}
    states = []
    for step in range(3):
        run.train(step)
        states.append(run.state())
        with held_writer() as free:
            attempt.begin(step)
            found["addresses"].append(
                [
                    tensor.data_ptr()
                    for held in attempt.store._snapshots._stagings.values()
                    for tensor in held[1].tensors
                ]
            )
            run.train(step + 10)  # all weights and moments change while nothing is written yet
            attempt.saver.measured(key_of(step))
            attempt.saver.settle(wait=False)
            found["asked"].append((attempt.saver.is_busy, attempt.path(step).exists(), attempt.steps()))
            with pytest.raises(AssertionError, match="would change what is being written"):
                attempt.store.stage(run.trainable, run.bank, attempt.path(9))
            free.set()
            attempt.saver.settle(wait=True)
        assert attempt.ledger.is_done(1, Phase.FOLLOWER, step)
    found["values"] = attempt.saver.values()
    digests = [file.read_bytes() for file in sorted(root.glob("rounds/01/follower/step-*/__*.distcp"))]
    found["num_files"] = len(set(digests))
    shutdown(run.topology)
    run = Run(Layout(), root)
    for step in range(3):
        run.bank.switch("base")
        run.bank.add(f"again-{step}", trained=True)
        run.store.load(run.trainable, run.bank, f"again-{step}", attempt.path(step))
        state = run.state()
        assert state.bits == states[step].bits, step
        assert state.step_count == states[step].step_count
    shutdown(run.topology)
    return found


def test_a_save_has_the_values_of_its_step_although_training_went_on(tmp_path: Path) -> None:
    for found in run_ranks(2, save_while_training, tmp_path):
        assert found["asked"] == [(True, False, list(range(step))) for step in range(3)]
        assert found["addresses"][0] == found["addresses"][1] == found["addresses"][2], "buffers were made again"
        assert found["num_files"] == 6  # two ranks, three steps: no file is that of the step before
        assert found["values"].keys() == {"save/stall_s", "save/write_s"}


def save_without_a_copy(root: Path) -> None:
    """The same where the buffers are the live tensors."""

    def alias(self: Staging, pieces: Any) -> None:
        self.tensors = [piece.source for piece in pieces]

    Staging.copy = alias
    run = Run(Layout(), root)
    run.train(0)
    with held_writer() as free:
        run.store.stage(run.trainable, run.bank, root / "step-0")
        run.store.start()
        run.train(1)
        free.set()
        run.store.take(wait=True)
    run.bank.switch("base")
    run.bank.add("again", trained=True)
    with pytest.raises(CheckpointError, match=r"step-0: weights .* after the load, .* were saved"):
        run.store.load(run.trainable, run.bank, "again", root / "step-0")
    shutdown(run.topology)


def test_values_of_a_later_step_are_not_taken_for_those_that_were_saved(tmp_path: Path) -> None:
    run_ranks(1, save_without_a_copy, tmp_path)


def save_after_a_move(root: Path) -> bool:
    """Whether a save has the values of a parameter whose memory was replaced since the save before, on one rank."""
    run = Run(Layout(), root)
    run.store.save(run.trainable, run.bank, root / "step-0", with_optimizer=False)
    if not run.topology.is_main:
        norm = dict(run.trainable.modules[0].named_parameters())["decoder.final_layernorm.weight"]
        norm.data = norm.data.clone()
    pieces = run.store._snapshots.plan(run.trainable, with_optimizer=False)
    live = {tensor.untyped_storage().data_ptr() for tensor in run.trainable.modules[0].parameters()}
    shutdown(run.topology)
    return all(piece.source.untyped_storage().data_ptr() in live for piece in pieces)


def test_a_parameter_that_was_given_other_memory_is_read_there(tmp_path: Path) -> None:
    assert run_ranks(2, save_after_a_move, tmp_path) == [True, True]


# Kills


def sweep(root: Path, shots: Path) -> dict[str, Any]:
    """Copies of the run directory at every change of it during a save; then what a new attempt makes of each."""
    run = Run(Layout(), root)
    attempt = Attempt(run, root, keep=1)
    states = {}
    with photographs(root, shots) as camera:
        for step in range(2):
            run.train(step)
            states[step] = run.state()
            camera.on = step == 1
            attempt.begin(step)
            attempt.saver.measured(key_of(step))
            attempt.saver.settle(wait=True)
    outcomes: dict[int, int] = {}
    for number, shot in enumerate(sorted(shots.iterdir())):
        later = Attempt(run, shot)
        step = later.steps()[-1]
        hidden = [path.name for path in shot.rglob(".*") if path.is_dir()]
        assert not hidden, (shot.name, hidden)
        run.bank.switch("base")
        run.bank.add(f"shot-{number}", trained=True)
        later.store.load(run.trainable, run.bank, f"shot-{number}", later.path(step))
        assert run.state().bits == states[step].bits, shot.name
        outcomes[step] = outcomes.get(step, 0) + 1
        if number % 8 == 0:  # and the step that was killed can be saved again
            later.begin(2)
            later.saver.measured(key_of(2))
            later.saver.settle(wait=True)
            assert later.steps()[-1] == 2
    shutdown(run.topology)
    return {"outcomes": outcomes, "kinds": camera.kinds}


class Camera:
    def __init__(self, root: Path, shots: Path) -> None:
        self.on = False
        self.kinds: dict[str, int] = {}
        self._root, self._shots = root, shots
        self._lock = threading.Lock()

    def __call__(self, kind: str) -> None:
        if not self.on:
            return
        with self._lock:
            self.on = False  # the copy's own calls
            number = sum(self.kinds.values())
            shutil.copytree(self._root, self._shots / f"{number:03d}-{kind}")
            self.kinds[kind] = self.kinds.get(kind, 0) + 1
            self.on = True


@contextmanager
def photographs(root: Path, shots: Path) -> Iterator[Camera]:
    """Copy `root` before each change of it, and in the middle of each write: what a SIGKILL there would leave."""
    shots.mkdir()
    camera = Camera(root, shots)
    real = {name: getattr(os, name) for name in ("fsync", "rename", "unlink", "rmdir", "mkdir", "write")}

    def before(name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            camera(name)
            return real[name](*args, **kwargs)

        return call

    def half(descriptor: int, data: bytes) -> int:
        if not camera.on:
            return real["write"](descriptor, data)
        real["write"](descriptor, data[: len(data) // 2])
        camera("append")
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - len(data) // 2)
        return real["write"](descriptor, data)

    large = itertools.count()

    def stream_write(self: Any, data: Any) -> int:
        if len(data) < 1000 or next(large) % 6:
            return self._file.write(data)
        half = len(data) // 2
        self._file.write(data[:half])
        self._file.flush()
        camera("inside")
        return half + self._file.write(data[half:])

    for name in real:
        setattr(os, name, before(name))
    os.write = half
    whole, files_module._Stream.write = files_module._Stream.write, stream_write
    try:
        yield camera
    finally:
        files_module._Stream.write = whole
        for name, function in real.items():
            setattr(os, name, function)


def test_a_kill_at_any_moment_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    (found,) = run_ranks(1, sweep, tmp_path / "run", tmp_path / "shots")
    kinds, outcomes = found["kinds"], found["outcomes"]
    assert set(kinds) == {"mkdir", "inside", "fsync", "rename", "append", "unlink", "rmdir"}
    assert kinds["inside"] >= 8 and kinds["unlink"] >= 5
    assert outcomes.keys() == {0, 1} and min(outcomes.values()) > 5  # before and after the ledger's line
    assert sum(outcomes.values()) == sum(kinds.values())


# Disks


def fail_in_the_middle(root: Path, tmpfs: Path | None) -> dict[str, Any]:
    """Errors of three failing saves and what each leaves, then a good save."""
    run = Run(Layout(), root)
    place = root if tmpfs is None else tmpfs
    store = CheckpointStore(place, run.topology)
    kept = store.save(run.trainable, run.bank, place / "step-0").digest
    names = sorted(path.name for path in place.iterdir())
    errors: list[str] = []
    run.train(0)

    def expect(error: type[Exception], saving: CheckpointStore) -> None:
        with pytest.raises(error) as caught:
            saving.save(run.trainable, run.bank, place / "step-0")
        errors.append(str(caught.value))
        assert sorted(path.name for path in place.iterdir()) == names
        assert saving.verify(place / "step-0").digest == kept

    size = max(path.stat().st_size for path in (place / "step-0").iterdir())
    if tmpfs is None:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limit[1]))
        expect(WriteError, store)
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    else:  # there was room when the save began
        write = store_module.write_pieces

        def write_where_others_do(*args: Any) -> Any:
            (place / "filler").write_bytes(bytes(shutil.disk_usage(place).free - size // 2))
            try:
                return write(*args)
            finally:
                (place / "filler").unlink()

        store_module.write_pieces = write_where_others_do
        expect(WriteError, store)
        store_module.write_pieces = write
    expect(NoSpaceError, CheckpointStore(place, run.topology, min_free_bytes=1 << 60))
    saved = store.save(run.trainable, run.bank, place / "step-0").digest
    shutdown(run.topology)
    return {"errors": errors, "same": saved == kept}


@pytest.mark.parametrize("disk", ["a limit on files", "a full tmpfs"])
def test_a_full_disk_leaves_the_checkpoint_before(disk: str, tmp_path: Path) -> None:
    mounted = tmp_path / "tmpfs"
    mounted.mkdir()
    if disk == "a full tmpfs":
        mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(mounted)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
            pytest.skip("mounting a tmpfs needs root")
    try:
        (found,) = run_ranks(1, fail_in_the_middle, tmp_path / "run", mounted if disk == "a full tmpfs" else None)
    finally:
        if disk == "a full tmpfs":
            subprocess.run(["umount", str(mounted)], check=True)
    middle, refused = found["errors"]
    assert ("No space left on device" if disk == "a full tmpfs" else "File too large") in middle
    assert "a checkpoint needs 0.00" in refused and "checkpoint.min_free_gib=1.07374e+09 must stay free" in refused
    assert not found["same"]


def fail_on_one_rank(root: Path) -> list[str]:
    """What every rank sees of an error that one has, or of a writer that hangs, and what is left."""
    run = Run(Layout(), root)
    attempt = Attempt(run, root, write_timeout_s=2.0)
    run.train(0)
    attempt.begin(0)
    attempt.saver.measured(key_of(0))
    attempt.saver.settle(wait=True)
    errors: list[str] = []
    write = store_module.write_pieces

    def full(*args: Any) -> Any:
        raise OSError(28, "No space left on device", str(args[0].name))

    if not run.topology.is_main:
        store_module.write_pieces = full
    attempt.begin(1)
    attempt.saver.measured(key_of(1))
    with pytest.raises(WriteError) as caught:
        attempt.saver.settle(wait=True)
    errors.append(str(caught.value))
    store_module.write_pieces = write
    late = Attempt(run, root, write_timeout_s=2.0)
    with held_writer() as free:
        late.begin(1)
        late.saver.measured(key_of(1))
        thread = late.store._background._work.thread  # pyright: ignore[reportOptionalMemberAccess]
        with pytest.raises(WriteError) as caught:
            late.saver.settle(wait=True)
        errors.append(str(caught.value).removeprefix(f"{root}/"))
        free.set()
        thread.join()
    dist.barrier()
    assert late.steps() == [0]
    assert sorted(path.name for path in late.path(0).parent.iterdir()) == ["step-0000"]
    shutdown(run.topology)
    return errors


def test_every_rank_sees_that_one_could_not_write_and_nothing_is_left(tmp_path: Path) -> None:
    for full, late in run_ranks(2, fail_on_one_rank, tmp_path):
        assert full == "[Errno 28] No space left on device: '__1_0.distcp'"
        assert late.startswith("rounds/01/follower/step-0001: not written within checkpoint.write_timeout_s=2: the ")


# Two attempts at once


def wake_up_late(root: Path, newer_saves: bool) -> dict[str, Any]:
    """An older attempt's save is in flight while a newer attempt starts and, perhaps, saves the same step."""
    run = Run(Layout(), root)
    older = Attempt(run, root)
    run.train(0)
    older.begin(0)
    older.saver.measured(key_of(0))
    older.saver.settle(wait=True)
    run.train(1)
    write = store_module.write_pieces
    with held_writer() as free:
        older.begin(1)
        older.saver.measured(key_of(1))
        temporary = [path.name for path in older.path(0).parent.iterdir() if path.name.startswith(".")]
        thread = older.store._background._work.thread  # pyright: ignore[reportOptionalMemberAccess]
        newer = Attempt(run, root)
        assert not any((older.path(0).parent / name).exists() for name in temporary), (
            "leftovers are the newer's to clean"
        )
        if not newer_saves:
            (older.path(0).parent / temporary[0]).mkdir()  # the older's node has not seen that yet
        held, store_module.write_pieces = store_module.write_pieces, write
        if newer_saves:
            run.train(5)
            newer.begin(1)
            newer.saver.measured(key_of(1))
            newer.saver.settle(wait=True)
        store_module.write_pieces = held
        before = listing(root)
        free.set()
        thread.join()
    with pytest.raises((FencedOutError, WriteError)) as caught:
        older.saver.settle(wait=True)
    assert listing(root) == before
    with pytest.raises(FencedOutError):
        older.store.prune_here(older.path(0).parent, keep=1) if newer_saves else older.ledger.check_fence()
    assert listing(root) == before
    if newer_saves:
        newer.store.verify(newer.path(1))
    shutdown(run.topology)
    return {"error": type(caught.value).__name__, "steps": newer.steps(), "temporary": len(temporary)}


def listing(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("newer_saves", [True, False])
def test_an_overtaken_attempt_changes_nothing(newer_saves: bool, tmp_path: Path) -> None:
    (found,) = run_ranks(1, wake_up_late, tmp_path, newer_saves)
    assert found["error"] == ("WriteError" if newer_saves else "FencedOutError")
    assert found["temporary"] == 1
    assert found["steps"] == ([0, 1] if newer_saves else [0])
