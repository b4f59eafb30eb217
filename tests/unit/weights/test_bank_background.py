"""The bank's background: little host memory, prefetching, damage found early; and caches that hang on weights."""

import random
from pathlib import Path

import pytest

from seif_nemo.weights.bank import RoleBank
from seif_nemo.weights.host_copies import Slots, WeightDigestError
from tests.unit.weights.test_bank import FakeModel, FakeSums, _equal, _memory, _train, bank, model

__all__ = ["bank", "model"]  # fixtures


def test_a_bank_with_little_host_memory_does_the_same(model: FakeModel, tmp_path: Path) -> None:
    """Every resident visits every other, with all copies in memory and with two of each kind."""
    twin = FakeModel()
    banks = (RoleBank(model, FakeSums()), RoleBank(twin, FakeSums(), Slots(2, 2, tmp_path)))
    for name in ("base", "evaluator", "instructor", "follower", "critic"):
        for each in banks:
            each.add(name, trained=name in ("instructor", "follower", "critic"))
    order = random.Random(0).choices(banks[0].names, k=60)
    for step, name in enumerate(order):
        for each, its_model in zip(banks, (model, twin), strict=True):
            with each.resident(name):
                if each.is_trained(name):
                    _train(each, its_model)
            each.switch(order[step - 1])
            if step % 7 == 0:
                each.copy("follower", "evaluator")
        assert _equal(model.snapshot(), twin.snapshot()), step
        assert (banks[0].version, model.step_count) == (banks[1].version, twin.step_count)
        assert len(banks[1]._weights.in_memory) == len(banks[1]._moments.in_memory) == 2
    assert [banks[0].digest(name) for name in order] == [banks[1].digest(name) for name in order]
    assert list(tmp_path.iterdir()) == []  # the files have no names


@pytest.mark.parametrize("tier", ["_weights", "_moments"])
def test_a_full_spill_disk_changes_nothing(tier: str, model: FakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = RoleBank(model, FakeSums())
    for name in ("instructor", "follower"):
        bank.add(name, trained=True)
    _train(bank, model)
    before = model.snapshot()

    def full(_name: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(getattr(bank, tier), "to_fill", full)
    with pytest.raises(OSError, match="No space left"), bank.resident("instructor"):
        pass
    assert (bank.resident_name, bank.version) == ("follower", "follower@1")
    assert _equal(model.snapshot(), before)
    monkeypatch.undo()
    bank.switch("instructor")
    bank.switch("follower")
    assert _equal(model.snapshot(), before)


def test_what_came_after_a_resident_last_time_is_prefetched(bank: RoleBank) -> None:
    bank.switch("instructor")
    bank.switch("base")
    bank.switch("follower")
    bank.switch("instructor")  # base came after it
    assert bank._weights._copies["base"].is_checked
    assert not bank._weights._copies["instructor"].is_checked


def test_damage_that_a_prefetch_finds_is_raised_by_the_swap(bank: RoleBank, model: FakeModel) -> None:
    before = model.snapshot()
    _memory(bank._weights, "base")[0][1] = 7
    bank.prefetch("base")
    with pytest.raises(WeightDigestError, match="resident base is damaged: buffer 0"):
        bank.switch("base")
    assert bank.resident_name == "follower"
    assert _equal(model.snapshot(), before)
    with pytest.raises(WeightDigestError, match="resident base is damaged: buffer 0"):
        bank.switch("base")  # it is not forgotten


class SumCache:
    """As caches of prefixes or of converted weights do, it keeps something made of the weights until it is told."""

    def __init__(self, model: FakeModel) -> None:
        self._model = model
        self._kept: float | None = None

    def clear(self) -> None:
        self._kept = None

    def value(self) -> float:
        if self._kept is None:
            self._kept = float(self._model.weights[0].sum())
        return self._kept


def test_a_registered_cache_is_never_stale(bank: RoleBank, model: FakeModel) -> None:
    registered, forgotten = SumCache(model), SumCache(model)
    bank.on_change(registered.clear)

    def right() -> bool:
        return registered.value() == float(model.weights[0].sum())

    def refill() -> None:
        model.weights[0].fill_(9)

    actions = [
        lambda: _train(bank, model),
        lambda: bank.copy("follower", "evaluator"),
        lambda: bank.switch("evaluator"),
        lambda: bank.switch("instructor"),
        lambda: bank.copy("follower", "instructor"),  # the resident itself
        lambda: bank.refill("evaluator", refill, origin="follower@9", updates=0),
        lambda: bank.add("late", trained=False),
    ]
    stale = 0
    for action in actions:
        assert right()
        forgotten.value()
        action()
        assert right()
        stale += forgotten.value() != float(model.weights[0].sum())
    with bank.resident("base"):
        assert right()
    assert right()
    assert stale >= 4, "a cache that nobody registered is caught out"
