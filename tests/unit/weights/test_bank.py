"""The bank against a model of flat buffers: bits, versions, moments, failures, allocations."""

from collections.abc import Iterable, Sequence

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from seif_nemo.parallel.tensor_sums import flat_sums
from seif_nemo.weights.bank import RoleBank
from seif_nemo.weights.host_copies import HostCopies, WeightDigestError


class FakeModel:
    """One fp32 and one bf16 weight buffer; a "train step" adds known numbers to weights and moments."""

    def __init__(self) -> None:
        self.weights = [torch.arange(5.0), torch.arange(3).bfloat16()]
        self.scales = [torch.ones(2)]
        self.moments = [torch.zeros(8), torch.zeros(8)]
        self.step_count = 0
        self.learning_rate = 0.5
        self.refreshed = 0

    def weight_buffers(self) -> list[torch.Tensor]:
        return self.weights

    def weight_views(self, buffers: Sequence[torch.Tensor]) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        return zip(self.weights, buffers, strict=True)

    def fp8_buffers(self) -> list[torch.Tensor]:
        return self.scales

    def moment_buffers(self) -> list[torch.Tensor]:
        return self.moments

    def set_learning_rate(self, learning_rate: float) -> None:
        self.learning_rate = learning_rate

    def after_weights_changed(self) -> None:
        self.refreshed += 1

    def train_step(self) -> None:
        self.step_count += 1
        for offset, buffer in enumerate(self.weights + self.moments + self.scales):
            buffer += self.step_count + offset

    def snapshot(self) -> list[torch.Tensor]:
        return [buffer.clone() for buffer in self.weights + self.moments + self.scales]


class FakeSums:
    """Of each buffer, in a world of one."""

    def of(self, views: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        return torch.stack([flat_sums([view]) for _, view in views])

    def odd_one(self, expected: torch.Tensor, found: torch.Tensor) -> str:
        return f"buffer {int((expected != found).any(dim=1).nonzero()[0])}"

    def join(self, sums: torch.Tensor) -> str:
        return str(sums.tolist())


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def bank(model: FakeModel) -> RoleBank:
    """base (frozen), instructor and follower (trained), all with the same weights; the follower is resident."""
    bank = RoleBank(model, FakeSums())
    bank.add("base", trained=False)
    bank.add("instructor", trained=True)
    bank.add("follower", trained=True)
    return bank


def _memory(copies: HostCopies, name: str) -> list[torch.Tensor]:
    """Once what is under way has ended."""
    copies._wait(copies._copies[name])
    memory = copies._copies[name].memory
    assert memory is not None
    return memory


def _train(bank: RoleBank, model: FakeModel) -> None:
    model.train_step()
    bank.mark_updated()


def _equal(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_there_and_back_is_bit_identical_with_moments_and_step(bank: RoleBank, model: FakeModel) -> None:
    _train(bank, model)
    model.set_learning_rate(0.25)
    follower = model.snapshot()
    bank.switch("instructor")
    assert model.weights[0].tolist() == [0, 1, 2, 3, 4]
    assert model.moments[1].tolist() == [0] * 8
    assert (model.step_count, model.learning_rate) == (0, 0.5)
    _train(bank, model)
    _train(bank, model)
    instructor = model.snapshot()
    assert instructor[0].tolist() == [3, 4, 5, 6, 7]  # 1 + 2
    bank.switch("follower")
    assert _equal(model.snapshot(), follower)
    assert (model.step_count, model.learning_rate) == (1, 0.25)
    bank.switch("instructor")
    assert _equal(model.snapshot(), instructor)
    assert model.step_count == 2


def test_frozen_visitor_leaves_the_moments_where_they_are(bank: RoleBank, model: FakeModel) -> None:
    _train(bank, model)
    trained = model.snapshot()
    host = _memory(bank._moments, "follower")
    with bank.resident("base"):
        assert model.weights[0].tolist() == [0, 1, 2, 3, 4]
        assert model.moments[0].tolist() == [3] * 8
        assert host[0].tolist() == [0] * 8  # nothing was copied out
        assert model.step_count == 1
    assert _equal(model.snapshot(), trained)
    with bank.resident("base"):
        bank.switch("instructor")  # now they must be stored
        assert host[0].tolist() == [3] * 8
    assert _equal(model.snapshot(), trained)


def test_versions_name_the_weights(bank: RoleBank, model: FakeModel) -> None:
    assert bank.version == "follower@0"
    _train(bank, model)
    _train(bank, model)
    assert bank.version == "follower@2"
    bank.copy("follower", "evaluator")
    _train(bank, model)
    assert (bank.version_of("evaluator"), bank.version) == ("evaluator=follower@2", "follower@3")
    bank.copy("evaluator", "reference")
    assert bank.version_of("reference") == "reference=follower@2"
    bank.copy("base", "follower")  # counts on: the next step must not be follower@1 again
    assert bank.version == "follower=base@0"
    _train(bank, model)
    assert bank.version == "follower@5"
    assert (bank.origin("evaluator"), bank.updates("follower")) == ("follower@2", 5)


def test_versions_continue_on_resume(model: FakeModel) -> None:
    bank = RoleBank(model, FakeSums())
    bank.add("evaluator", trained=False, origin="follower@7")
    bank.add("follower", trained=True, updates=9)
    assert bank.version_of("evaluator") == "evaluator=follower@7"
    _train(bank, model)
    assert bank.version == "follower@10"


def test_copy_is_a_copy(bank: RoleBank, model: FakeModel) -> None:
    _train(bank, model)
    bank.copy("follower", "evaluator")
    assert bank.digest("evaluator") == bank.digest("follower") != bank.digest("base")
    _train(bank, model)
    assert bank.digest("evaluator") != bank.digest("follower")
    with bank.resident("evaluator"):
        assert model.weights[0].tolist() == [1, 2, 3, 4, 5]
    assert model.weights[0].tolist() == [3, 4, 5, 6, 7]


def test_copy_onto_the_resident_trained_role_resets_its_moments(bank: RoleBank, model: FakeModel) -> None:
    _train(bank, model)
    bank.copy("base", "follower")
    assert bank.resident_name == "follower"
    assert model.weights[0].tolist() == [0, 1, 2, 3, 4]
    assert model.moments[0].tolist() == [0] * 8
    assert model.step_count == 0


def test_copy_onto_a_trained_role_behind_a_frozen_visitor(bank: RoleBank, model: FakeModel) -> None:
    _train(bank, model)
    with bank.resident("base"):
        bank.copy("instructor", "follower")
        assert bank.resident_name == "base"
        assert model.moments[0].tolist() == [0] * 8
    assert bank.version == "follower=instructor@0"
    assert model.weights[0].tolist() == [0, 1, 2, 3, 4]


def test_optimizer_reset_in_the_model_is_kept(bank: RoleBank, model: FakeModel) -> None:
    _train(bank, model)
    bank.switch("instructor")
    bank.switch("follower")
    model.step_count = 0
    for buffer in model.moments:
        buffer.zero_()
    bank.switch("instructor")
    _train(bank, model)
    bank.switch("follower")
    assert model.moments[0].tolist() == [0] * 8
    assert model.step_count == 0


def test_damaged_host_copy_is_caught_before_the_model_is_touched(bank: RoleBank, model: FakeModel) -> None:
    _train(bank, model)
    before = model.snapshot()
    _memory(bank._weights, "base")[1].view(torch.uint8)[2] ^= 1
    with pytest.raises(WeightDigestError, match="resident base is damaged: buffer 1"):
        bank.switch("base")
    assert bank.resident_name == "follower"
    assert _equal(model.snapshot(), before)
    with pytest.raises(WeightDigestError, match="resident base is damaged: buffer 1"):
        bank.copy("base", "evaluator")
    assert "evaluator" not in bank.names


def test_damaged_moments_are_caught(bank: RoleBank, model: FakeModel) -> None:
    _train(bank, model)
    bank.switch("instructor")
    before = model.snapshot()
    _memory(bank._moments, "follower")[1][7] = 1e-30
    with pytest.raises(WeightDigestError, match="resident follower is damaged: its moments"):
        bank.switch("follower")
    assert bank.resident_name == "instructor"
    assert _equal(model.snapshot(), before)


def test_exception_inside_resident_restores(bank: RoleBank, model: FakeModel) -> None:
    _train(bank, model)
    before = model.snapshot()
    with pytest.raises(KeyError), bank.resident("instructor"), bank.resident("base"):
        raise KeyError
    assert bank.resident_name == "follower"
    assert _equal(model.snapshot(), before)


def test_failure_in_the_middle_of_a_load_restores(bank: RoleBank, model: FakeModel, monkeypatch) -> None:
    _train(bank, model)
    before = model.snapshot()
    monkeypatch.setattr(model, "after_weights_changed", lambda: (_ for _ in ()).throw(OSError("torn")))
    with pytest.raises(OSError, match="torn"):
        bank.switch("instructor")
    monkeypatch.undo()
    with pytest.raises(AssertionError, match="no resident is in the model"):
        _ = bank.version
    bank.switch("follower")
    assert _equal(model.snapshot(), before)


def test_callbacks_and_model_hear_of_every_change(model: FakeModel) -> None:
    heard: list[str] = []
    bank = RoleBank(model, FakeSums())
    bank.on_change(lambda: heard.append("a"))
    bank.on_change(lambda: heard.append("b"))
    bank.add("base", trained=False)
    bank.add("follower", trained=True)
    heard.clear()
    with bank.resident("base"):
        assert (heard, model.refreshed) == (["a", "b"], 1)
    assert (heard, model.refreshed) == (["a", "b"] * 2, 2)
    bank.switch("follower")
    assert (heard, model.refreshed) == (["a", "b"] * 2, 2)  # it was there already
    _train(bank, model)
    assert heard == ["a", "b"] * 3


def test_refill_replaces_weights_moments_and_versions(bank: RoleBank, model: FakeModel) -> None:
    def load() -> None:
        model.weights[0].fill_(9)
        model.moments[0].fill_(8)
        model.step_count = 3

    bank.switch("base")
    bank.refill("follower", load, origin="follower@12", updates=12)
    assert bank.version == "follower@12"
    bank.switch("instructor")
    bank.switch("follower")
    assert model.weights[0].tolist() == [9] * 5
    assert model.moments[0].tolist() == [8] * 8
    assert model.step_count == 3
    with pytest.raises(ValueError, match="12 updates; weights with 11 would repeat"):
        bank.refill("follower", load, origin="follower@11", updates=11)
    bank.refill("follower", load, origin="follower@12", updates=12)  # the same again
    with pytest.raises(ValueError, match="follower@12 was loaded with weights"):
        bank.refill("follower", model.train_step, origin="follower@12", updates=12)


def test_frozen_residents_may_be_refilled_with_anything_of_another_name(bank: RoleBank, model: FakeModel) -> None:
    bank.copy("follower", "evaluator")
    bank.copy("follower", "evaluator")

    def load() -> None:
        model.weights[0].fill_(7)

    bank.refill("evaluator", load, origin="follower@1", updates=0)
    assert (bank.version, model.weights[0].tolist()) == ("evaluator=follower@1", [7] * 5)
    with pytest.raises(ValueError, match="evaluator=follower@1 was loaded with weights"):
        bank.refill("evaluator", model.train_step, origin="follower@1", updates=0)


def test_failed_refill_gives_the_old_contents_back(bank: RoleBank, model: FakeModel) -> None:
    _train(bank, model)
    before = model.snapshot()

    def load() -> None:
        model.weights[0].fill_(9)
        model.moments[0].fill_(9)
        model.step_count = 99
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        bank.refill("follower", load, origin="follower@5", updates=5)
    assert _equal(model.snapshot(), before)
    assert (bank.version, model.step_count) == ("follower@1", 1)


def test_train_steps_that_nobody_marked_are_an_error(bank: RoleBank, model: FakeModel) -> None:
    model.train_step()
    with pytest.raises(AssertionError, match="follower: steps without mark_updated"):
        bank.switch("base")


def test_frozen_residents_cannot_be_updated(bank: RoleBank) -> None:
    bank.switch("base")
    with pytest.raises(AssertionError, match="resident 'base' is frozen"):
        bank.mark_updated()


def test_adding_keeps_what_was_not_stored_yet(bank: RoleBank, model: FakeModel) -> None:
    _train(bank, model)
    before = model.snapshot()
    bank.add("third", trained=True)
    _train(bank, model)
    bank.switch("follower")
    assert _equal(model.snapshot(), before)
    assert (bank.version_of("third"), bank.version) == ("third@1", "follower@1")


def test_names_are_checked(bank: RoleBank) -> None:
    with pytest.raises(ValueError, match="no resident 'folower'; known: base, instructor, follower"):
        bank.switch("folower")
    with pytest.raises(ValueError, match="'base' exists already"):
        bank.add("base", trained=False)


class _Allocations(TorchDispatchMode):
    """Records the bytes of every operation's result that is new memory, in this thread."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        known = {arg.untyped_storage().data_ptr() for arg in args if isinstance(arg, torch.Tensor)}
        for tensor in result if isinstance(result, list | tuple) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in known:
                self.made.append(tensor.nbytes)
        return result


def _pointers(bank: RoleBank, model: FakeModel) -> list[int]:
    copies = [(tier, name) for tier in (bank._weights, bank._moments) for name in tier.in_memory]
    buffers = [buffer for tier, name in sorted(copies, key=lambda copy: copy[1]) for buffer in _memory(tier, name)]
    return [buffer.data_ptr() for buffer in buffers + model.weights + model.moments]


def test_no_buffer_is_allocated_after_warm_up(model: FakeModel) -> None:
    model.weights = [torch.arange(float(1 << 17))]
    model.moments = [torch.zeros(1 << 17)]
    bank = RoleBank(model, FakeSums())
    bank.add("instructor", trained=True)
    bank.add("follower", trained=True)
    bank.copy("follower", "evaluator")
    before = _pointers(bank, model)
    with _Allocations() as allocations:
        torch.zeros(1)
        for _ in range(3):
            _train(bank, model)
            with bank.resident("evaluator"):
                pass
            bank.switch("instructor")
            bank.switch("follower")
            bank.copy("follower", "evaluator")
    assert _pointers(bank, model) == before
    assert allocations.made == [4], "only what this test made itself"


def test_a_train_step_that_fails_in_a_block_is_dropped_and_its_error_goes_on() -> None:
    model = FakeModel()
    bank = RoleBank(model, FakeSums())
    for name in ("follower", "critic"):
        bank.add(name, trained=True)
    bank.switch("critic")
    model.train_step()
    bank.mark_updated()
    critic, version = model.snapshot(), bank.version
    bank.switch("follower")
    follower = model.snapshot()

    def fail() -> None:
        with bank.resident("critic"):
            model.train_step()
            raise KeyError("in the middle")

    with pytest.raises(KeyError, match="in the middle"):
        fail()
    assert (bank.resident_name, model.step_count) == ("follower", 0)
    assert all(torch.equal(a, b) for a, b in zip(model.snapshot(), follower, strict=True))
    bank.switch("critic")
    assert (bank.version, model.step_count) == (version, 1)
    assert all(torch.equal(a, b) for a, b in zip(model.snapshot(), critic, strict=True))


def test_damaged_scales_are_named(bank: RoleBank) -> None:
    _memory(bank._weights, "base")[2][1] = 7
    with pytest.raises(WeightDigestError, match="resident base is damaged: its FP8 scales"):
        bank.switch("base")
