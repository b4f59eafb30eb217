"""Checkpoints of training steps: begun at a step, in the ledger when they are whole.

    begin    role (and critic) copied in host memory; written in a thread of each rank
    measured the step's metrics are on disk
    settle   the next save, and the end of a phase or of the run, wait for the one in flight

The main rank writes the ledger's line as soon as checkpoint and metrics are both there, in whichever thread is the
second to say so. Nothing else is recorded meanwhile, so the ledger's order is that of the steps. A kill before the line
redoes the step and what followed it.
"""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from seif_nemo.checkpointing.store import CheckpointStore, SavedCheckpoint
from seif_nemo.config.checkpoint import CheckpointConfig
from seif_nemo.evolution.ledger import Ledger, LedgerEntry
from seif_nemo.evolution.paths import RunPaths
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.types.records import UnitKey
from seif_nemo.types.residents import Resident
from seif_nemo.weights.bank import RoleBank


class _Pending:
    """A save in flight, or written and not yet in this rank's memory of the ledger."""

    def __init__(self, key: UnitKey, digests: dict[str, str], names: Sequence[str]) -> None:
        self.key = key
        self.digests = digests
        self.names = names  # of files beside the model whose digests belong into the ledger
        self.lock = threading.Lock()
        self.is_measured = False
        self.is_recorded = False
        self.published: Sequence[SavedCheckpoint] | None = None  # on the main rank
        self.saved: Sequence[SavedCheckpoint] | None = None  # once every rank knows


class Saver:
    """Saves the steps of a training phase, one at a time. All methods are collective unless they say otherwise."""

    def __init__(
        self,
        store: CheckpointStore,
        ledger: Ledger,
        paths: RunPaths,
        config: CheckpointConfig,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._paths = paths
        self._config = config
        self._pending: _Pending | None = None
        self._values: dict[str, float] = {}

    @property
    def is_busy(self) -> bool:
        """Whether a begun save is not in the ledger of this rank yet. The same on every rank."""
        return self._pending is not None

    def begin(
        self,
        key: UnitKey,
        trainable: TrainableModel,
        bank: RoleBank,
        roles: Sequence[Resident],
        *,
        beside: tuple[str, Callable[[Path], None]] | None = None,
    ) -> None:
        """Save the residents `roles` as the step `key`; the first is the phase's, and the resident one.

        `beside`: name and writer of a file that belongs to the checkpoint. Returns when all is copied or, where saves
        are synchronous, written. Waits for the save before.
        """
        started = time.monotonic()
        if self.is_busy:
            self.settle(wait=True)
            self._values["save/wait_s"] = time.monotonic() - started
        path = self._paths.checkpoint(key.round, key.phase, key.step)
        digests = {role.value: bank.digest(role) for role in roles}
        for critic in roles[1:]:
            with bank.resident(critic):
                self._store.stage(trainable, bank, self._paths.critic_checkpoint(path))
        self._store.stage(trainable, bank, path, write_beside=None if beside is None else beside[1])
        pending = _Pending(key, digests, [] if beside is None else [beside[0]])
        self._store.start(partial(self._published, pending))
        self._pending = pending
        if not self._config.asynchronous:
            self.settle(wait=True)
        self._values["save/stall_s"] = time.monotonic() - started

    def settle(self, *, wait: bool) -> None:
        """See whether the save in flight is whole, and remember it; with `wait`, not before it is.

        Raises what `CheckpointStore.take` raises.
        """
        started = time.monotonic()
        if self._store.is_busy:
            finished = self._store.take(wait=wait)
            if finished is None:
                return
            assert self._pending is not None
            self._pending.saved = finished.result
            self._values["save/write_s"] = finished.seconds
        self._remember()
        if wait:
            self._values["save/stall_s"] = self._values.get("save/stall_s", 0.0) + time.monotonic() - started

    def measured(self, key: UnitKey) -> bool:
        """Say that the metrics of all steps up to `key` are on disk. Whether that step is in the ledger."""
        if (pending := self._pending) is not None:
            with pending.lock:
                pending.is_measured = True
                if pending.published is not None and not pending.is_recorded:
                    self._record(pending, pending.published)
            self._remember()
        return self._ledger.is_done(key.round, key.phase, key.step)

    def note(self, values: dict[str, float]) -> None:
        """Have `values` in the metrics of the next unit of work. Not collective."""
        self._values |= values

    def values(self) -> dict[str, float]:
        """What was measured of saves since the last call, for the metrics. Not collective."""
        values, self._values = self._values, {}
        return values

    def abandon(self) -> None:
        """Let the save in flight end; for a run that ends by an error. Not collective."""
        self._store.abandon()

    def prune(self, checkpoint: Path, *, with_critic: bool) -> None:
        """Remove the checkpoints that `checkpoint` makes superfluous."""
        for path in [checkpoint, *([self._paths.critic_checkpoint(checkpoint)] if with_critic else [])]:
            self._store.prune(path.parent, keep=self._config.keep, newest=path)

    def _remember(self) -> None:
        pending = self._pending
        if pending is not None and pending.saved is not None and pending.is_measured:
            self._ledger.remember(self._entry(pending, pending.saved))
            self._pending = None

    def _published(self, pending: _Pending, saved: Sequence[SavedCheckpoint]) -> None:
        """In the thread of the main rank that writes: the checkpoints have their names."""
        with pending.lock:
            pending.published = saved
            if pending.is_measured:
                self._record(pending, saved)

    def _record(self, pending: _Pending, saved: Sequence[SavedCheckpoint]) -> None:
        self._ledger.write(self._entry(pending, saved))
        pending.is_recorded = True
        for each in saved:
            self._store.prune_here(each.path.parent, keep=self._config.keep, newest=each.path)

    def _entry(self, pending: _Pending, saved: Sequence[SavedCheckpoint]) -> LedgerEntry:
        path = saved[-1].path
        beside = {record.name: record.digest for record in saved[-1].manifest.files if record.name in pending.names}
        return self._ledger.entry(
            pending.key,
            digests=pending.digests | beside,
            checkpoint=path.relative_to(self._paths.root).as_posix(),
        )
