"""Generation in a layout of its own answers with the weights of the trained model, and never with older ones."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from seif_nemo.components.refit_engine import RefitEngine
from seif_nemo.config.algorithm import OptimizerConfig
from seif_nemo.generation.megatron.engine import MegatronEngine
from seif_nemo.models.builder import build_gpt
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.second_layout import add_layout
from seif_nemo.parallel.topology import build_topology, shutdown
from seif_nemo.protocols.engine import StaleWeightsError
from seif_nemo.weights.bank import RoleBank
from seif_nemo.weights.refit import Refit
from seif_nemo.weights.role_digest import RoleSums
from tests.dist.harness import run_ranks
from tests.dist.test_generation import MAX_LENGTH, SAMPLINGS, Letters, make_requests, plain
from tests.dist.tiny_gpt import TINY, Layout, build_tiny

Plain = list[tuple[list[int], str, str]]


@dataclass(frozen=True, slots=True)
class Seen:
    answers: dict[str, Plain]
    logprobs: list[float]  # of the first role's answers
    refits: int
    refused: str


class CountedRefit(Refit):
    runs = 0

    def run(self, digest: str) -> None:
        self.runs += 1
        super().run(digest)


def roles_in_turn(train: Layout, generate: Layout | None) -> Seen:
    """Three roles answer, one of them a copy of another, then one learns and answers again."""
    topology = build_topology(train.config, seed=0, threads=1, rendezvous_timeout_s=60)
    modules = build_tiny(topology)
    trainable = TrainableModel(modules, modules[0].config, OptimizerConfig(), topology)
    bank = RoleBank(trainable, RoleSums(trainable.modules, TINY, topology))

    def engine(its_modules: Any, its_topology: Any, version: Any) -> MegatronEngine:
        return MegatronEngine(
            its_modules,
            its_topology,
            Letters(),
            max_batch_rows=8,
            max_sequence_length=MAX_LENGTH,
            weight_version=version,
        )

    refit: CountedRefit | None = None
    speaking: MegatronEngine | RefitEngine = engine(modules, topology, lambda: bank.version)
    if generate is not None:
        second = add_layout(generate.config, topology)
        with second.in_place():
            own = build_gpt(TINY, second.topology, dtype=torch.float32, max_sequence_length=MAX_LENGTH)
        refit = CountedRefit(modules, topology, own, second.topology, TINY, bucket_bytes=10_000)
        speaking = RefitEngine(
            lambda version: engine(own, second.topology, version),
            second,
            refit,
            version=lambda: bank.version,
            digest=lambda: bank.digest(bank.resident_name),
        )
    bank.on_change(speaking.invalidate_caches)
    bank.add("instructor", trained=True)
    _change(trainable, 1.2)
    bank.add("follower", trained=True)
    bank.copy("follower", "evaluator")
    answers: dict[str, Plain] = {}
    logprobs: list[float] = []
    for name in ("instructor", "follower", "evaluator", "instructor"):
        with bank.resident(name):
            rollouts = speaking.generate(make_requests(), SAMPLINGS["sampled"], weight_version=bank.version)
        assert answers.setdefault(name, plain(rollouts)) == plain(rollouts), "an answer of another role's weights"
        logprobs = logprobs or [float(value) for rollout in rollouts for value in rollout.logprobs]
    bank.switch("follower")
    before = bank.version
    _change(trainable, 0.9)
    bank.mark_updated()
    refused = ""
    try:
        speaking.generate(make_requests(), SAMPLINGS["sampled"], weight_version=before)
    except StaleWeightsError as error:
        refused = str(error)
    rollouts = speaking.generate(make_requests(), SAMPLINGS["sampled"], weight_version=bank.version)
    answers["learned"] = plain(rollouts)
    shutdown(topology)
    return Seen(answers, logprobs, 0 if refit is None else refit.runs, refused)


@torch.no_grad()
def _change(trainable: TrainableModel, factor: float) -> None:
    for buffer in trainable.weight_buffers():
        buffer.mul_(factor)
    trainable.after_weights_changed()


@pytest.fixture(scope="module")
def expected() -> Seen:
    (seen,) = run_ranks(1, roles_in_turn, Layout(1), None)
    distinct = {str(answers) for name, answers in seen.answers.items() if name != "evaluator"}
    assert len(distinct) == 3 and seen.answers["evaluator"] == seen.answers["follower"]
    return seen


@pytest.mark.parametrize(
    ("train", "generate"),
    [
        (Layout(2), Layout(2, tensor=2)),
        (Layout(2, pipeline=2), Layout(2, tensor=2, sequence=True)),
        (Layout(2, tensor=2, sequence=True), Layout(2)),
        (Layout(2, context=2), Layout(2, pipeline=2)),
    ],
)
def test_roles_answer_in_turn_from_another_layout(train: Layout, generate: Layout, expected: Seen) -> None:
    for seen in run_ranks(2, roles_in_turn, train, generate):
        assert seen.answers == expected.answers
        np.testing.assert_allclose(seen.logprobs, expected.logprobs, atol=2e-5)
        assert seen.refits == 4  # instructor, follower (the evaluator is equal), instructor, what was learned
        assert seen.refused == "asked for weights 'follower@0', but the model holds 'follower@1'"
