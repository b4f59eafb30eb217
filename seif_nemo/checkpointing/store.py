"""Checkpoints of residents: whole or not there, verified before use.

    save:  snapshot in host memory │ temporary directory → every rank's file, synced → digests → manifest.json, synced
           (training waits for it) │ → rename. This part runs in a thread of each rank.
    load:  manifest → every file's size and digest → Megatron's load → digest of the weights

A kill at any moment leaves either the old or the new checkpoint under its name, and hidden leftovers that the next
`CheckpointStore` of the run removes. The directory must be one that all ranks see.
"""

import secrets
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
import torch.distributed as dist

from seif_nemo.checkpointing.background import Background, Finished
from seif_nemo.checkpointing.files import Index, Written, rank_file, write_pieces, write_shared
from seif_nemo.checkpointing.manifest import (
    MANIFEST_NAME,
    CheckpointError,
    FileRecord,
    Manifest,
    WriteError,
    layout_of,
    read_manifest,
    record_file,
    verify_files,
    write_manifest,
)
from seif_nemo.checkpointing.space import check_free_space
from seif_nemo.checkpointing.state import Snapshot, Snapshots, load_state
from seif_nemo.data.files import sync
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.collectives import any_rank, broadcast_int
from seif_nemo.parallel.topology import Topology

_TEMPORARY = ".tmp-"  # .<name>.tmp-<token>: not whole yet, or being removed
_REPLACED = ".old-"  # .<name>.old-<token>: the checkpoint that a new one of the same name is replacing


class Residents(Protocol):
    """What the store needs of `weights/bank.py`."""

    @property
    def resident_name(self) -> str: ...
    def is_trained(self, name: str) -> bool: ...
    def digest(self, name: str) -> str: ...
    def digest_in_model(self) -> str: ...
    def origin(self, name: str) -> str: ...
    def updates(self, name: str) -> int: ...
    def refill(self, name: str, load: Callable[[], None], *, origin: str, updates: int) -> None: ...


class Base(Protocol):
    """The frozen base model, where residents are adapters on it: `FrozenBase` of `weights/role_digest.py`."""

    @property
    def digest(self) -> str: ...
    def fault(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    path: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        """Digest of every byte of the checkpoint; two saves of the same state at the same layout have the same."""
        return self.manifest.digest


@dataclass(frozen=True, slots=True, eq=False)
class _Staged:
    """A checkpoint whose values are in host memory. The manifest has no files yet."""

    path: Path
    temporary: Path
    snapshot: Snapshot
    manifest: Manifest
    num_bytes: int  # of all ranks
    write_beside: Callable[[Path], None] | None


class CheckpointStore:
    """Saves and loads below `root`. All methods are collective: every rank calls them with the same arguments.

    `check_fence` is asked on the main rank before a checkpoint gets its name or loses it; it raises where a newer
    attempt owns the run. Creating a store removes what killed attempts left behind. `base` is what the
    residents are adapters on, if they are: it is checked at each save and load, and no adapter is loaded onto another.

    `save` is `stage` → `start` → `take(wait=True)`. Between `start` and `take` the model may change; one such job, of
    one or more checkpoints, is in flight at a time.
    """

    def __init__(
        self,
        root: Path,
        topology: Topology,
        *,
        check_fence: Callable[[], None] | None = None,
        write_timeout_s: float = 1800.0,
        min_free_bytes: int = 0,
        base: Base | None = None,
    ) -> None:
        self._topology = topology
        self._base = base
        self._check_fence = check_fence or (lambda: None)
        # An older attempt's names never clash with ours.
        self._token = f"{broadcast_int(time.time_ns(), topology):x}-{broadcast_int(secrets.randbits(32), topology):x}"
        self._min_free_bytes = min_free_bytes
        self._snapshots = Snapshots()
        self._indices = {True: Index(), False: Index()}  # with and without optimizer state
        self._staged: list[_Staged] = []
        self._background: Background[list[SavedCheckpoint]] = Background(topology, timeout_s=write_timeout_s)
        self._on_main(lambda: self._take_over(root))

    def save(
        self,
        trainable: TrainableModel,
        bank: Residents,
        path: Path,
        *,
        with_optimizer: bool | None = None,
        write_beside: Callable[[Path], None] | None = None,
    ) -> SavedCheckpoint:
        """Save the resident role and wait until it is on disk; arguments and errors as those of `stage` and `start`."""
        self.stage(trainable, bank, path, with_optimizer=with_optimizer, write_beside=write_beside)
        self.start()
        finished = self.take(wait=True)
        assert finished is not None
        return finished.result[0]

    def stage(
        self,
        trainable: TrainableModel,
        bank: Residents,
        path: Path,
        *,
        with_optimizer: bool | None = None,
        write_beside: Callable[[Path], None] | None = None,
    ) -> None:
        """Copy the resident role, as it is now, into host memory. Nothing is written.

        `path` is its name, and may be that of a checkpoint which it is to replace. `with_optimizer` defaults to whether
        the resident is trained. `write_beside` writes more files into a directory, on the main rank and in `start`:
        they become part of the checkpoint.
        """
        assert not self.is_busy, "a snapshot now would change what is being written"
        role = bank.resident_name
        if with_optimizer is None:
            with_optimizer = bank.is_trained(role)
        assert bank.is_trained(role) or not with_optimizer, f"{role} is frozen: it has no optimizer state"
        self._check_base()
        snapshot = self._snapshots.take(trainable, with_optimizer=with_optimizer, place=len(self._staged))
        num_bytes = torch.tensor([float(snapshot.num_bytes)], dtype=torch.float64, device=self._topology.device)
        dist.all_reduce(num_bytes, group=self._topology.world_group)
        manifest = Manifest(
            role=str(role),
            origin=bank.origin(role),
            updates=bank.updates(role),
            weights_digest=bank.digest(role),
            layout=layout_of(self._topology),
            step_count=trainable.step_count if with_optimizer else None,
            learning_rate=trainable.learning_rate if with_optimizer else None,
            base_digest=None if self._base is None else self._base.digest,
            files=(),
        )
        temporary = self._hidden(path, _TEMPORARY)
        self._staged.append(_Staged(path, temporary, snapshot, manifest, int(num_bytes.item()), write_beside))

    def start(self, published: Callable[[Sequence[SavedCheckpoint]], None] | None = None) -> None:
        """Begin to write what was staged.

        `published` is called on the main rank, in the thread that writes, when all of it has its names. Raises
        NoSpaceError on the main rank before anything is written, WriteError on the others.
        """
        staged, self._staged = self._staged, []

        def prepare() -> None:
            needed = [(each.path.parent, each.num_bytes) for each in staged]
            check_free_space(needed, min_free_bytes=self._min_free_bytes)
            try:
                for each in staged:
                    each.temporary.mkdir(parents=True)
                    if each.write_beside is not None:
                        each.write_beside(each.temporary)
            except BaseException:
                _remove(staged)
                raise

        self._on_main(prepare)
        self._background.start(str(staged[-1].path), lambda: self._write(staged, published or (lambda saved: None)))

    @property
    def is_busy(self) -> bool:
        """Whether a job was started whose end `take` has not told."""
        return self._background.is_busy

    def take(self, *, wait: bool) -> Finished[list[SavedCheckpoint]] | None:
        """What was saved, in the order of `stage`, and how long the writing took; None while it goes on.

        Raises on all ranks if it failed: WriteError, or `check_fence`'s error on the main rank. What was there before
        is then still there, and what was written is removed.
        """
        return self._background.take(wait=wait)

    def abandon(self) -> None:
        """Let the writing end, whatever comes of it; for a run that ends by an error. Not collective."""
        self._background.abandon()

    def load(
        self,
        trainable: TrainableModel,
        bank: Residents,
        role: str,
        path: Path,
        *,
        expect_digest: str | None = None,
    ) -> Manifest:
        """Make `role` the resident and fill it from a checkpoint of any layout, with moments if it is trained.

        A trained role starts with fresh moments if the checkpoint has none. `expect_digest` is the `digest` that the
        bank gave when the checkpoint was saved. Raises CheckpointError naming the file that is missing, damaged or of
        another content; the bank's residents are then what they were.
        """
        manifest = self.verify(path, expect_digest=expect_digest)
        self._check_base(path, manifest)
        is_trained = bank.is_trained(role)

        def load() -> None:
            load_state(trainable, path, with_optimizer=is_trained and manifest.has_optimizer)
            if (loaded := bank.digest_in_model()) != manifest.weights_digest:
                raise CheckpointError(f"{path}: weights {loaded} after the load, {manifest.weights_digest} were saved")
            if not is_trained:
                return
            if manifest.step_count is None:
                trainable.reset_optimizer()
                return
            assert manifest.learning_rate is not None
            trainable.step_count = manifest.step_count
            trainable.set_learning_rate(manifest.learning_rate)

        bank.refill(role, load, origin=manifest.origin, updates=manifest.updates)
        return manifest

    def verify(self, path: Path, *, expect_digest: str | None = None) -> Manifest:
        """The manifest of a checkpoint of which every file is what was saved; the ranks share the reading.

        Raises CheckpointError as `load` does, the same on every rank.
        """
        manifest, message = None, None
        try:
            manifest = read_manifest(path)
            if expect_digest not in (None, manifest.weights_digest):
                raise CheckpointError(
                    f"{path / MANIFEST_NAME}: weights {manifest.weights_digest}, but {expect_digest} are expected"
                )
            verify_files(path, manifest.files[self._topology.rank :: self._topology.world_size])
        except (CheckpointError, OSError) as error:
            message = str(error)
        self._raise_everywhere(message)
        assert manifest is not None
        return manifest

    def prune(
        self, directory: Path, *, keep: int, newest: Path | None = None, protect: Collection[Path] = ()
    ) -> list[Path]:
        """Remove all whole checkpoints in `directory` but the newest `keep` (by name) and those in `protect`.

        `newest`: those after it, which an attempt left that was killed before it could record them, do not count.
        Returns what the main rank removed.
        """
        removed: list[Path] = []
        self._on_main(lambda: removed.extend(self.prune_here(directory, keep=keep, newest=newest, protect=protect)))
        return removed

    def prune_here(
        self, directory: Path, *, keep: int, newest: Path | None = None, protect: Collection[Path] = ()
    ) -> list[Path]:
        """`prune` for the main rank alone, in any of its threads."""
        if keep < 1:
            raise ValueError(f"keep={keep} must be at least 1")
        protected = {entry.resolve() for entry in protect}
        whole = whole_checkpoints(directory)
        if newest in whole:
            whole = whole[: whole.index(newest) + 1]
        surplus = [entry for entry in whole[:-keep] if entry.resolve() not in protected]
        for entry in surplus:
            self._check_fence()
            doomed = self._hidden(entry, _TEMPORARY)  # a kill while it is removed must not leave half of it
            entry.rename(doomed)
            shutil.rmtree(doomed)
        return surplus

    def set_aside(self, moves: Mapping[Path, Path]) -> None:
        """Rename directories, in order; for checkpoints that no longer count."""

        def move() -> None:
            for source, target in moves.items():
                self._check_fence()
                target.parent.mkdir(exist_ok=True)
                source.rename(target)
                sync(target.parent)
                sync(source.parent)

        self._on_main(move)

    def _hidden(self, path: Path, mark: str) -> Path:
        return path.with_name(f".{path.name}{mark}{self._token}")

    def _on_main(self, action: Callable[[], None]) -> None:
        """Run `action` on the main rank while the others wait; if it fails, all ranks raise."""
        error: Exception | None = None
        if self._topology.is_main:
            try:
                action()
            except Exception as raised:
                error = raised
        failed = any_rank(error is not None, self._topology)
        if error is not None:
            raise error
        if failed:
            raise WriteError("the main rank failed to write; see its error")

    def _raise_everywhere(self, message: str | None) -> None:
        """Raise CheckpointError with the first rank's message on every rank, if any rank has one."""
        if any_rank(message is not None, self._topology):
            messages: list[str | None] = [None] * self._topology.world_size
            dist.all_gather_object(messages, message, group=self._topology.world_group)
            raise CheckpointError(next(text for text in messages if text is not None))

    def _check_base(self, path: Path | None = None, manifest: Manifest | None = None) -> None:
        """Raises CheckpointError if the base model is not what was loaded, or not that of a checkpoint's adapters."""
        digest = None if self._base is None else self._base.digest
        if manifest is not None and manifest.base_digest != digest:
            kinds = [
                "whole weights" if each is None else f"adapters on the base model {each}"
                for each in (manifest.base_digest, digest)
            ]
            raise CheckpointError(f"{path}: {kinds[0]} were saved, this run has {kinds[1]} (roles.mode, model.path)")
        if self._base is not None:
            self._raise_everywhere(self._base.fault())

    # In the thread that writes. Every rank runs it; only the background's own group may be used.

    def _write(
        self, staged: Sequence[_Staged], published: Callable[[Sequence[SavedCheckpoint]], None]
    ) -> list[SavedCheckpoint]:
        parts: list[tuple[FileRecord, list[Written] | None]] = []
        problem: Exception | None = None
        saved: list[SavedCheckpoint] = []
        try:
            try:
                parts = [self._write_part(each) for each in staged]
            except Exception as error:
                problem = error
            gathered = self._background.to_main((parts, None if problem is None else str(problem)))
            if self._topology.is_main:
                try:
                    if problem is not None:
                        raise problem
                    if (message := next((text for _, text in gathered if text is not None), None)) is not None:
                        raise WriteError(message)
                    saved = [
                        self._finish(each, [rank_parts[index] for rank_parts, _ in gathered])
                        for index, each in enumerate(staged)
                    ]
                    published(saved)
                except Exception as error:
                    problem = error
            saved, message = self._background.from_main((saved, None if problem is None else str(problem)))
        finally:
            if self._topology.is_main:
                _remove(staged)
        if problem is not None:
            raise problem
        if message is not None:
            raise WriteError(message)
        return saved

    def _write_part(self, staged: _Staged) -> tuple[FileRecord, list[Written] | None]:
        path = staged.temporary / rank_file(self._topology.rank)
        snapshot = staged.snapshot
        written = write_pieces(path, snapshot.pieces, snapshot.staging.tensors, snapshot.scales)
        return record_file(path), self._indices[staged.manifest.has_optimizer].news(written)

    def _finish(self, staged: _Staged, parts: Sequence[tuple[FileRecord, list[Written] | None]]) -> SavedCheckpoint:
        """On the main rank: what belongs to all ranks, the manifest, the name."""
        temporary = staged.temporary
        index = self._indices[staged.manifest.has_optimizer].data([news for _, news in parts])
        write_shared(temporary, staged.snapshot.common, index)
        own = [record_file(entry) for entry in temporary.iterdir() if not entry.name.startswith("__")]
        records = sorted([*own, *(record for record, _ in parts)], key=lambda record: record.name)
        manifest = replace(staged.manifest, files=tuple(records))
        self._publish(temporary, staged.path, manifest)
        return SavedCheckpoint(staged.path, manifest)

    def _publish(self, temporary: Path, path: Path, manifest: Manifest) -> None:
        write_manifest(temporary, manifest)
        sync(temporary)
        self._check_may_rename(path)
        replaced = self._hidden(path, _REPLACED)
        if path.exists():
            path.rename(replaced)
        temporary.rename(path)
        sync(path.parent)
        if replaced.exists():
            shutil.rmtree(replaced)

    def _check_may_rename(self, path: Path) -> None:
        if self._background.is_given_up.is_set():  # the run was told that it failed
            raise WriteError(f"{path}: written too late")
        self._check_fence()

    def _take_over(self, root: Path) -> None:
        self._check_fence()  # else what is unfinished may be a newer attempt's
        _clean(root)


def whole_checkpoints(directory: Path) -> list[Path]:
    """The checkpoints that lie in a directory, oldest first by their names' numbers."""
    whole = [entry for entry in directory.iterdir() if (entry / MANIFEST_NAME).is_file()]
    return sorted((e for e in whole if not e.name.startswith(".")), key=lambda e: (len(e.name), e.name))


def _remove(staged: Sequence[_Staged]) -> None:
    for each in staged:
        shutil.rmtree(each.temporary, ignore_errors=True)


def _clean(root: Path) -> None:
    """Remove what killed attempts left below `root`; put a checkpoint back whose replacement was not finished."""
    for leftover in sorted(root.glob(f"**/.*{_TEMPORARY}*")):
        shutil.rmtree(leftover)
    for replaced in sorted(root.glob(f"**/.*{_REPLACED}*")):
        path = replaced.with_name(replaced.name[1 : replaced.name.rindex(_REPLACED)])
        if path.exists():
            shutil.rmtree(replaced)
        else:
            replaced.rename(path)
