"""The weights that take turns in the one resident model.

    bank.add("follower", trained=True)          # host copy of what the model holds now
    bank.copy("follower", "evaluator")          # host to host
    with bank.resident("evaluator"):            # swap in place, swap back in `finally`
        engine.generate(..., weight_version=bank.version)

All calls are made on every rank in the same order: each rank moves its own shard, and all join their sums for a digest.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

from seif_nemo.parallel.tensor_sums import flat_sums
from seif_nemo.weights.host_copies import Checks, HostCopies, Slots
from seif_nemo.weights.role_digest import WeightSums
from seif_nemo.weights.transfer import Buffers, exchange, transfer


class SwappableModel(Protocol):
    """What the bank needs of a model: its flat buffers. `models/trainable.py` has it."""

    @property
    def step_count(self) -> int: ...  # optimizer steps taken
    @step_count.setter
    def step_count(self, value: int) -> None: ...
    def weight_buffers(self) -> Sequence[torch.Tensor]: ...
    def weight_views(self, buffers: Buffers) -> Iterable[tuple[torch.Tensor, torch.Tensor]]: ...
    def fp8_buffers(self) -> Sequence[torch.Tensor]: ...  # scales that go with the weights; none without FP8
    def moment_buffers(self) -> Sequence[torch.Tensor]: ...
    @property
    def learning_rate(self) -> float: ...
    def set_learning_rate(self, learning_rate: float) -> None: ...
    def after_weights_changed(self) -> None: ...


@dataclass(slots=True)
class _Moments:
    """What goes with the host copy of a trained role's moments. `stale`: the model holds newer ones."""

    step_count: int = 0
    learning_rate: float = 0.0
    stale: bool = True


@dataclass(slots=True)
class _Resident:
    """What goes with the host copy of a resident's weights (and FP8 scales). `stale`: the model holds newer ones."""

    origin: str  # the version that these weights had where they were made
    updates: int  # how often this resident's weights were replaced; never goes back
    digest: str | None = None  # of all ranks' weights; None until it is asked for
    moments: _Moments | None = None  # of trained roles only
    stale: bool = True


class _Contents:
    """A resident's weights and FP8 scales as one list of buffers, with the sums of both in one tensor."""

    def __init__(self, model: SwappableModel, sums: WeightSums) -> None:
        self._model = model
        self._sums = sums
        self._num_weights = len(model.weight_buffers())
        self._shape = sums.of(model.weight_views(model.weight_buffers())).shape

    def buffers(self) -> list[torch.Tensor]:
        return [*self._model.weight_buffers(), *self._model.fp8_buffers()]

    def sums(self, buffers: Buffers) -> torch.Tensor:
        of_weights = self._sums.of(self._model.weight_views(buffers[: self._num_weights]))
        return torch.cat([of_weights.flatten(), flat_sums(buffers[self._num_weights :])])

    def of_weights(self, sums: torch.Tensor) -> torch.Tensor:
        return sums[: self._shape.numel()].view(self._shape)

    def odd_one(self, expected: torch.Tensor, found: torch.Tensor) -> str:
        expected, found = self.of_weights(expected), self.of_weights(found)
        return "its FP8 scales" if torch.equal(expected, found) else self._sums.odd_one(expected, found)


class RoleBank:
    """Named host copies of this rank's shard, of which one is resident in `trainable`.

    Sums are made of each host copy when it is stored and checked before it is loaded, in the background where time is
    left for it: the bank prefetches what came after the present resident last time. The optimizer state in the model
    belongs to the trained role that was resident last and stays where it is while frozen residents visit. Buffers are
    allocated while the residents get their first copies and never again.

    Caches of anything derived from the weights are registered with `on_change`: they hear of every swap and update.

    Versions: "follower@12" is the follower after its weights were replaced 12 times; "evaluator=follower@12" is a copy
    of that. Two different weights never have the same version within a run.
    """

    def __init__(self, trainable: SwappableModel, sums: WeightSums, slots: Slots | None = None) -> None:
        """`slots`: how many copies may be in host memory; None: all."""
        self._model = trainable
        self._sums = sums
        self._callbacks: list[Callable[[], None]] = []
        self._residents: dict[str, _Resident] = {}
        self._name: str | None = None  # None while no resident is whole in the model
        self._moments_owner: str | None = None
        self._next: dict[str, str] = {}  # who came after whom last time
        slots = slots or Slots()
        self._contents = _Contents(trainable, sums)
        worker = ThreadPoolExecutor(1, thread_name_prefix="role-bank")
        self._weights = HostCopies(
            self._contents.buffers(),
            Checks(self._contents.sums, self._contents.odd_one),
            worker,
            slots=slots.weights,
            spill_dir=slots.spill_dir,
        )
        self._moments = HostCopies(
            trainable.moment_buffers(),
            Checks(flat_sums, lambda _expected, _found: "its moments"),
            worker,
            slots=slots.moments,
            spill_dir=slots.spill_dir,
        )

    def on_change(self, callback: Callable[[], None]) -> None:
        """Have `callback` called after every swap and update of the resident weights."""
        self._callbacks.append(callback)

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
        resident = self._residents[name] = _Resident(origin or f"{name}@{updates}", updates)
        self._name = name
        if trained:
            resident.moments = _Moments()
            self._moments_owner = name
            self._store_owned_moments()
        self._store(name)
        self._notify()

    def copy(self, source: str, target: str) -> None:
        """Give `target` the weights of `source`, on the host; a new `target` is frozen.

        A trained target starts with zero moments at step 0. A resident target is changed in the model as well.
        Raises WeightDigestError if the host copy of `source` is damaged.
        """
        original = self._find(source)
        self._store(source)
        self._weights.duplicate(source, target)
        copy = self._residents.setdefault(target, _Resident("", updates=-1))
        copy.origin, copy.updates, copy.stale = original.origin, copy.updates + 1, False
        copy.digest = original.digest
        if copy.moments is not None:
            for buffer in self._moments.to_fill(target):
                buffer.zero_()
            self._moments.filled(target)
            copy.moments.step_count, copy.moments.stale = 0, False
            if self._moments_owner == target:
                transfer(self._moments.read(target), self._model.moment_buffers())
                self._model.step_count = 0
        if self._name == target:
            self._load_weights(target)

    def switch(self, name: str) -> None:
        """Make `name` the resident, in place. Does nothing if it is.

        Stores the outgoing weights and moments on the way if they changed. Raises WeightDigestError before the model is
        touched if the host copy of `name` is not what was stored, and ValueError for an unknown name.
        """
        incoming = self._find(name)
        previous = self._name
        if name == previous:
            return
        if previous is not None:
            self._check_steps(previous)
        self.prefetch(name)
        weights = self._weights.read(name)
        # Where the host or its disk has no room, this raises: before anything has changed.
        is_stale = previous is not None and self._residents[previous].stale
        outgoing = self._weights.to_fill(previous) if previous is not None and is_stale else None
        if incoming.moments is not None and self._moments_owner != name:
            self._switch_moments(name, incoming.moments)
        self._name = None
        if previous is not None and outgoing is not None:
            exchange(self._contents.buffers(), outgoing, weights)
            self._stored(previous)
        else:
            transfer(weights, self._contents.buffers())
        self._loaded(name)
        if previous is not None:
            self._next[previous] = name
        if name in self._next:
            self.prefetch(self._next[name])

    def prefetch(self, name: str) -> None:
        """Begin to check the host copy of `name`, and to bring it into memory if it is on disk."""
        resident = self._find(name)
        if not resident.stale:
            self._weights.prefetch(name)
        if resident.moments is not None and self._moments_owner != name:
            self._moments.prefetch(name)

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
            self._store_owned_moments()
        try:
            load()
        except BaseException:
            if resident.moments is not None:
                self._load_moments(name, resident.moments)
            self._load_weights(name)
            raise
        resident.updates, resident.origin, resident.stale = updates, origin, True
        if resident.moments is not None:
            resident.moments.stale = True
            self._store_owned_moments()
        self._store(name)
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
            resident.digest = self._sums.join(self._contents.of_weights(self._weights.sums(name)))
        return resident.digest

    def digest_in_model(self) -> str:
        """Digest of what the model holds now, whichever resident that is or will be. Collective."""
        return self._sums.join(self._sums.of(self._model.weight_views(self._model.weight_buffers())))

    def _find(self, name: str) -> _Resident:
        if name not in self._residents:
            raise ValueError(f"no resident {str(name)!r}; known: {', '.join(self._residents) or 'none'}")
        return self._residents[name]

    def _notify(self) -> None:
        for callback in self._callbacks:
            callback()

    def _store(self, name: str) -> None:
        """Bring the host copy of a resident's weights up to date."""
        resident = self._find(name)
        assert name == self._name or not resident.stale
        if name == self._name:
            self._check_steps(name)
        if resident.stale:
            transfer(self._contents.buffers(), self._weights.to_fill(name))
            self._stored(name)

    def _stored(self, name: str) -> None:
        self._weights.filled(name)
        self._residents[name].stale, self._residents[name].digest = False, None

    def _check_steps(self, name: str) -> None:
        moments = self._residents[name].moments
        if moments is not None and not moments.stale:
            assert self._model.step_count in (0, moments.step_count), f"{name}: steps without mark_updated"

    def _store_owned_moments(self) -> None:
        """Bring the host copy of the moments in the model up to date."""
        owner = self._moments_owner
        if owner is None:
            return
        if self._changed_moments(owner):
            transfer(self._model.moment_buffers(), self._moments.to_fill(owner))
            self._moments.filled(owner)
        self._take_state(owner)

    def _changed_moments(self, owner: str) -> bool:
        """Whether the model holds newer moments than the host; a step count of 0 there means that they were reset."""
        moments = self._residents[owner].moments
        assert moments is not None
        return moments.stale or moments.step_count != self._model.step_count

    def _take_state(self, owner: str) -> None:
        """Note step count and learning rate of the model."""
        moments = self._residents[owner].moments
        assert moments is not None
        moments.step_count, moments.learning_rate = self._model.step_count, self._model.learning_rate
        moments.stale = False

    def _switch_moments(self, name: str, incoming: _Moments) -> None:
        owner = self._moments_owner
        buffers = self._moments.read(name)
        outgoing = None if owner is None or not self._changed_moments(owner) else self._moments.to_fill(owner)
        self._name = self._moments_owner = None
        if owner is not None:
            self._take_state(owner)
        if owner is not None and outgoing is not None:
            exchange(self._model.moment_buffers(), outgoing, buffers)
            self._moments.filled(owner)
        else:
            transfer(buffers, self._model.moment_buffers())
        self._own_moments(name, incoming)

    def _load_moments(self, name: str, moments: _Moments) -> None:
        transfer(self._moments.read(name), self._model.moment_buffers())
        self._own_moments(name, moments)

    def _own_moments(self, name: str, moments: _Moments) -> None:
        self._model.step_count = moments.step_count
        self._model.set_learning_rate(moments.learning_rate)
        self._moments_owner = name

    def _load_weights(self, name: str) -> None:
        weights = self._weights.read(name)
        self._name = None
        transfer(weights, self._contents.buffers())
        self._loaded(name)

    def _loaded(self, name: str) -> None:
        self._model.after_weights_changed()
        self._name = name
        self._notify()
