"""Checkpoints of residents: whole or not there, verified before use.

    save:  temporary directory → Megatron's files, synced → digests → manifest.json, synced → rename
    load:  manifest → every file's size and digest → Megatron's load → digest of the weights

A kill at any moment leaves either the old or the new checkpoint under its name, and hidden leftovers that the next
`CheckpointStore` of the run removes. The directory must be one that all ranks see.
"""

import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch.distributed as dist

from seif_nemo.checkpointing.manifest import (
    MANIFEST_NAME,
    CheckpointError,
    FileRecord,
    Manifest,
    layout_of,
    read_manifest,
    record_file,
    verify_files,
    write_manifest,
)
from seif_nemo.checkpointing.state import StateWriter, load_state
from seif_nemo.data.files import sync
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.collectives import any_rank, barrier, broadcast_int
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


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    path: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        """Digest of every byte of the checkpoint; two saves of the same state at the same layout have the same."""
        return self.manifest.digest


class CheckpointStore:
    """Saves and loads below `root`. All methods are collective: every rank calls them with the same arguments.

    `check_fence` is asked on the main rank before a checkpoint gets its name or loses it; it raises where a newer
    attempt owns the run. Creating a store removes what killed attempts left behind.
    """

    def __init__(self, root: Path, topology: Topology, *, check_fence: Callable[[], None] | None = None) -> None:
        self._topology = topology
        self._check_fence = check_fence or (lambda: None)
        self._token = f"{broadcast_int(time.time_ns(), topology):x}"  # an older attempt's names never clash with ours
        self._writer = StateWriter(topology)
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
        """Save the resident role; replaces a checkpoint of the same name.

        `with_optimizer` defaults to whether the resident is trained. `write_beside` writes more files into a directory,
        on the main rank: they become part of the checkpoint. Raises CheckpointError or OSError; what was there
        before is then still there.
        """
        role = bank.resident_name
        if with_optimizer is None:
            with_optimizer = bank.is_trained(role)
        assert bank.is_trained(role) or not with_optimizer, f"{role} is frozen: it has no optimizer state"
        temporary = self._hidden(path, _TEMPORARY)
        self._on_main(lambda: temporary.mkdir(parents=True))
        self._writer.save(trainable, temporary, with_optimizer=with_optimizer)
        if write_beside is not None:
            self._on_main(lambda: write_beside(temporary))
        manifest = Manifest(
            role=str(role),
            origin=bank.origin(role),
            updates=bank.updates(role),
            weights_digest=bank.digest(role),
            layout=layout_of(self._topology),
            step_count=trainable.step_count if with_optimizer else None,
            learning_rate=trainable.learning_rate if with_optimizer else None,
            files=self._record_files(temporary),
        )
        self._on_main(lambda: self._publish(temporary, path, manifest))
        return SavedCheckpoint(path, manifest)

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

    def prune(self, directory: Path, *, keep: int, protect: Collection[Path] = ()) -> list[Path]:
        """Remove all whole checkpoints in `directory` but the newest `keep` (by name) and those in `protect`.

        Returns what the main rank removed.
        """
        if keep < 1:
            raise ValueError(f"keep={keep} must be at least 1")
        removed: list[Path] = []

        def prune() -> None:
            whole = [entry for entry in directory.iterdir() if (entry / MANIFEST_NAME).is_file()]
            whole = sorted((e for e in whole if not e.name.startswith(".")), key=lambda e: (len(e.name), e.name))
            protected = {entry.resolve() for entry in protect}
            surplus = [entry for entry in whole[:-keep] if entry.resolve() not in protected]
            if surplus:
                self._check_fence()
            for entry in surplus:
                doomed = self._hidden(entry, _TEMPORARY)  # a kill while it is removed must not leave half of it
                entry.rename(doomed)
                shutil.rmtree(doomed)
                removed.append(entry)

        self._on_main(prune)
        return removed

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
            raise CheckpointError("the main rank failed to write; see its error")

    def _raise_everywhere(self, message: str | None) -> None:
        """Raise CheckpointError with the first rank's message on every rank, if any rank has one."""
        if any_rank(message is not None, self._topology):
            messages: list[str | None] = [None] * self._topology.world_size
            dist.all_gather_object(messages, message, group=self._topology.world_group)
            raise CheckpointError(next(text for text in messages if text is not None))

    def _record_files(self, directory: Path) -> tuple[FileRecord, ...]:
        """Sync and digest the files that this rank wrote; the records of all ranks, sorted by name."""
        barrier(self._topology)
        own = f"__{self._topology.rank}_"
        records: list[FileRecord] = []
        message = None
        try:
            for entry in directory.iterdir():
                if entry.name.startswith(own) or (self._topology.is_main and not entry.name.startswith("__")):
                    records.append(record_file(entry))
        except OSError as error:
            message = str(error)
        self._raise_everywhere(message)
        gathered: list[list[FileRecord]] = [[] for _ in range(self._topology.world_size)]
        dist.all_gather_object(gathered, records, group=self._topology.world_group)
        return tuple(sorted((record for part in gathered for record in part), key=lambda record: record.name))

    def _publish(self, temporary: Path, path: Path, manifest: Manifest) -> None:
        write_manifest(temporary, manifest)
        sync(temporary)
        self._check_fence()
        replaced = self._hidden(path, _REPLACED)
        if path.exists():
            path.rename(replaced)
        temporary.rename(path)
        sync(path.parent)
        if replaced.exists():
            shutil.rmtree(replaced)

    def _take_over(self, root: Path) -> None:
        self._check_fence()  # else what is unfinished may be a newer attempt's
        _clean(root)


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
