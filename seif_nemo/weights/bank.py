"""The weights that take turns in the one resident model.

    bank.add("follower", trained=True)          # host copy of what the model holds now
    bank.copy("follower", "evaluator")          # host to host
    with bank.resident("evaluator"):            # swap in place, swap back in `finally`
        engine.generate(..., weight_version=bank.version)

All calls are made on every rank in the same order: each rank moves its own shard, and all join their sums for a digest.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

from seif_nemo.parallel.tensor_sums import flat_sums
from seif_nemo.weights.role_digest import WeightSums

_NO_SUMS = torch.empty(0)  # nothing was stored yet


class SwappableModel(Protocol):
    """What the bank needs of a model: its flat buffers. `models/trainable.py` has it."""

    @property
    def step_count(self) -> int: ...  # optimizer steps taken
    @step_count.setter
    def step_count(self, value: int) -> None: ...
    def weight_buffers(self) -> Sequence[torch.Tensor]: ...
    def moment_buffers(self) -> Sequence[torch.Tensor]: ...
    @property
    def learning_rate(self) -> float: ...
    def set_learning_rate(self, learning_rate: float) -> None: ...
    def after_weights_changed(self) -> None: ...


class WeightDigestError(RuntimeError):
    """A host copy is not what was stored. The model was not touched."""


@dataclass(slots=True)
class _Moments:
    """Host copy of a trained role's optimizer state. `stale`: the model holds a newer one."""

    buffers: list[torch.Tensor]
    sums: torch.Tensor  # `flat_sums` of the buffers
    step_count: int
    learning_rate: float
    stale: bool = False


@dataclass(slots=True)
class _Resident:
    """Host copy of one resident. `stale`: the model holds newer weights."""

    weights: list[torch.Tensor]
    sums: torch.Tensor  # of this rank's weights
    origin: str  # the version that these weights had where they were made
    updates: int  # how often this resident's weights were replaced; never goes back
    digest: str | None = None  # of all ranks' weights; None until it is asked for
    moments: _Moments | None = None  # of trained roles only
    stale: bool = False


class RoleBank:
    """Named host copies of this rank's shard, of which one is resident in `trainable`.

    Sums are made of each host copy when it is stored and checked before it is loaded. The optimizer state in the
    model belongs to the trained role that was resident last and stays where it is while frozen residents visit.
    Buffers are allocated in `add` and `copy` to a new name only. `on_weights_changed` are called after every swap and
    update (caches derived from the weights).

    Versions: "follower@12" is the follower after its weights were replaced 12 times; "evaluator=follower@12" is a copy
    of that. Two different weights never have the same version within a run.
    """

    def __init__(
        self, trainable: SwappableModel, sums: WeightSums, on_weights_changed: Sequence[Callable[[], None]] = ()
    ) -> None:
        self._model = trainable
        self._sums = sums
        self._callbacks = tuple(on_weights_changed)
        self._residents: dict[str, _Resident] = {}
        self._name: str | None = None  # None while no resident is whole in the model
        self._moments_owner: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._residents)

    @property
    def resident_name(self) -> str:
        assert self._name is not None, "no resident is in the model: call RoleBank.add first"
        return self._name

    def is_trained(self, name: str) -> bool:
        return self._find(name).moments is not None

    @property
    def version(self) -> str:
        """Version of the resident weights."""
        return self.version_of(self.resident_name)

    @property
    def version_before(self) -> str:
        """Version that the resident weights, of a trained role, had before their last update."""
        return f"{self.resident_name}@{self._find(self.resident_name).updates - 1}"

    def version_of(self, name: str) -> str:
        origin = self._find(name).origin
        return origin if origin.split("@")[0] == name else f"{name}={origin}"

    def origin(self, name: str) -> str:
        """Version that the weights of `name` had in the role that made them: to be given to `add` on resume."""
        return self._find(name).origin

    def updates(self, name: str) -> int:
        """How often the weights of `name` were replaced: to be given to `add` on resume."""
        return self._find(name).updates

    def add(self, name: str, *, trained: bool, origin: str | None = None, updates: int = 0) -> None:
        """Make a new resident `name` of what the model holds now; it becomes the resident one.

        `trained`: with the optimizer state that the model holds. `origin` and `updates` continue the versions of an
        earlier process; by default the weights are new. Raises ValueError if the name is taken.
        """
        if name in self._residents:
            raise ValueError(f"resident {str(name)!r} exists already; known: {', '.join(self._residents)}")
        if self._name is not None:
            self._store(self._name)
        if trained:
            self._store_owned_moments()
        resident = _Resident(
            _host_like(self._model.weight_buffers()), _NO_SUMS, origin or f"{name}@{updates}", updates, stale=True
        )
        self._residents[name] = resident
        self._name = name
        if trained:
            resident.moments = _Moments(_host_like(self._model.moment_buffers()), _NO_SUMS, 0, 0.0, stale=True)
            self._store_moments(resident.moments)
            self._moments_owner = name
        self._store_weights(resident)
        self._notify()

    def copy(self, source: str, target: str) -> None:
        """Give `target` the weights of `source`, on the host; a new `target` is frozen.

        A trained target starts with zero moments at step 0. A resident target is changed in the model as well.
        Raises WeightDigestError if the host copy of `source` is damaged.
        """
        original = self._find(source)
        self._store(source)
        self._verify(source, original)
        if target not in self._residents:
            self._residents[target] = _Resident(_host_like(original.weights), _NO_SUMS, "", updates=-1)
        copy = self._residents[target]
        _transfer(original.weights, copy.weights)
        copy.sums, copy.digest = original.sums, original.digest
        copy.origin, copy.updates, copy.stale = original.origin, copy.updates + 1, False
        was_resident = self._name == target
        if copy.moments is not None:
            _reset(copy.moments)
            if self._moments_owner == target:
                self._load_moments(target, copy.moments)
        if was_resident:
            self._load_weights(target, copy)

    def switch(self, name: str) -> None:
        """Make `name` the resident, in place. Does nothing if it is.

        Stores the outgoing weights and moments first if they changed. Raises WeightDigestError before the model is
        touched if the host copy of `name` is not what was stored, and ValueError for an unknown name.
        """
        incoming = self._find(name)
        if name == self._name:
            return
        if self._name is not None:
            self._store(self._name)
        self._verify(name, incoming)
        if incoming.moments is not None and self._moments_owner != name:
            self._verify_moments(name, incoming.moments)
            self._store_owned_moments()
            self._name = None
            self._load_moments(name, incoming.moments)
        self._load_weights(name, incoming)

    @contextmanager
    def resident(self, name: str) -> Iterator[None]:
        """Have `name` resident inside the block and the previous resident again after it, whatever happens.

        Where the block fails in the middle of a train step, `name` keeps what it had before that step.
        """
        previous = self.resident_name
        try:
            self.switch(name)
            yield
        except BaseException:
            self._forget_unmarked_steps()
            raise
        finally:
            self.switch(previous)

    def _forget_unmarked_steps(self) -> None:
        """What the model holds of a step that was not marked is not stored when the next resident comes in."""
        if self._moments_owner is None:
            return
        owner = self._residents[self._moments_owner]
        assert owner.moments is not None
        if not owner.stale and self._model.step_count > owner.moments.step_count:
            self._model.step_count = owner.moments.step_count

    def mark_updated(self) -> None:
        """Say that a train step has changed the resident weights and moments in the model: a new version."""
        resident = self._find(self.resident_name)
        assert resident.moments is not None, f"mark_updated: resident {self._name!r} is frozen"
        resident.updates += 1
        resident.origin = f"{self._name}@{resident.updates}"
        resident.stale = resident.moments.stale = True
        self._notify()

    def refill(self, name: str, load: Callable[[], None], *, origin: str, updates: int) -> None:
        """Make `name` resident with what `load()` puts into the model: weights, and moments of a trained role.

        `origin` and `updates` are those that the loaded weights had when they were saved. If `load` raises, the model
        gets the old ones back. Raises ValueError where the same version would come to mean other weights.
        """
        resident = self._find(name)
        if resident.moments is not None and updates < resident.updates:
            raise ValueError(f"{name} has {resident.updates} updates; weights with {updates} would repeat versions")
        self.switch(name)
        self._store(name)
        before = self.version, self.digest(name)
        if resident.moments is not None:
            self._store_moments(resident.moments)
        try:
            load()
        except BaseException:
            if resident.moments is not None:
                self._load_moments(name, resident.moments)
            self._load_weights(name, resident)
            raise
        resident.updates, resident.origin, resident.stale = updates, origin, True
        if resident.moments is not None:
            resident.moments.stale = True
            self._store_moments(resident.moments)
        self._store_weights(resident)
        self._notify()
        if self.version == before[0] and self.digest(name) != before[1]:
            raise ValueError(f"{self.version} was loaded with weights {self.digest(name)}, but was {before[1]}")

    def digest(self, name: str) -> str:
        """Digest of the newest weights of `name`, the same on every rank and at every layout. Collective.

        Raises ReplicasDifferError where ranks that must hold the same weights do not.
        """
        self._store(name)
        resident = self._find(name)
        if resident.digest is None:
            resident.digest = self._sums.join(resident.sums)
        return resident.digest

    def digest_in_model(self) -> str:
        """Digest of what the model holds now, whichever resident that is or will be. Collective."""
        return self._sums.join(self._sums.of(self._model.weight_buffers()))

    def _find(self, name: str) -> _Resident:
        if name not in self._residents:
            raise ValueError(f"no resident {str(name)!r}; known: {', '.join(self._residents) or 'none'}")
        return self._residents[name]

    def _notify(self) -> None:
        for callback in self._callbacks:
            callback()

    def _verify(self, name: str, resident: _Resident) -> None:
        found = self._sums.of(resident.weights)
        if not torch.equal(found, resident.sums):
            odd = self._sums.odd_one(resident.sums, found)
            raise WeightDigestError(f"host copy of resident {name} is damaged: {odd} is not what was stored")

    def _verify_moments(self, name: str, moments: _Moments) -> None:
        if not torch.equal(flat_sums(moments.buffers), moments.sums):
            raise WeightDigestError(f"host copy of resident {name} is damaged: its moments are not what was stored")

    def _store(self, name: str) -> None:
        """Bring the host copy of a resident's weights up to date."""
        resident = self._find(name)
        assert name == self._name or not resident.stale
        if name == self._name and resident.moments is not None and not resident.moments.stale:
            assert self._model.step_count in (0, resident.moments.step_count), f"{name}: steps without mark_updated"
        if resident.stale:
            self._store_weights(resident)

    def _store_weights(self, resident: _Resident) -> None:
        _transfer(self._model.weight_buffers(), resident.weights)
        resident.sums, resident.digest = self._sums.of(resident.weights), None
        resident.stale = False

    def _store_owned_moments(self) -> None:
        if self._moments_owner is not None:
            moments = self._residents[self._moments_owner].moments
            assert moments is not None
            self._store_moments(moments)

    def _store_moments(self, moments: _Moments) -> None:
        """Bring the host copy of the moments in the model up to date; a step count of 0 means they were reset."""
        stale = moments.stale or moments.step_count != self._model.step_count
        moments.step_count, moments.learning_rate = self._model.step_count, self._model.learning_rate
        if stale:
            _transfer(self._model.moment_buffers(), moments.buffers)
            moments.sums = flat_sums(moments.buffers)
        moments.stale = False

    def _load_moments(self, name: str, moments: _Moments) -> None:
        self._moments_owner = None
        _transfer(moments.buffers, self._model.moment_buffers())
        self._model.step_count = moments.step_count
        self._model.set_learning_rate(moments.learning_rate)
        self._moments_owner = name

    def _load_weights(self, name: str, incoming: _Resident) -> None:
        self._name = None
        _transfer(incoming.weights, self._model.weight_buffers())
        self._model.after_weights_changed()
        self._name = name
        self._notify()


def _reset(moments: _Moments) -> None:
    for buffer in moments.buffers:
        buffer.zero_()
    moments.sums = flat_sums(moments.buffers)
    moments.step_count, moments.stale = 0, False


def _host_like(buffers: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    pinned = torch.cuda.is_available()  # true never ran on a GPU
    return [torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu", pin_memory=pinned) for buffer in buffers]


@torch.no_grad()
def _transfer(sources: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        assert (source.shape, source.dtype) == (target.shape, target.dtype)
        target.copy_(source, non_blocking=True)
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # never ran on a GPU
