"""What actor and critic do alike: updates of the resident weights, one for each mini-batch, and their account."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from seif_nemo.components.batching import Row
from seif_nemo.components.passes import Passes
from seif_nemo.data.packing import PackingPlan
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.topology import Topology
from seif_nemo.types.training import TrainSample, ValueSample


class NonFiniteGradientsError(RuntimeError):
    """Too many updates in a row had gradients that are not finite. `samples` are those of the last one."""

    def __init__(self, message: str, samples: Sequence[TrainSample | ValueSample]) -> None:
        super().__init__(message)
        self.samples = tuple(samples)


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """One mini-batch and what came of it. Not applied: its gradients were not finite, and it changed nothing."""

    applied: bool
    weight: float  # in means over the updates of a step
    grad_norm: float  # before clipping
    update_norm: float
    router_aux_loss: float
    plan: PackingPlan
    reports: tuple[Tensor, ...]  # of the loss function, for each micro-batch of this replica; on its last stage only


@dataclass(frozen=True, slots=True)
class Account:
    """The updates of one train step together; means are over those that were applied."""

    grad_norm: float  # NaN if all were skipped
    update_norm: float
    num_updates: int
    num_skipped_updates: int
    num_micro_batches: int  # per replica
    packing_fill: float
    packing_imbalance: float  # the largest
    router_aux_loss: float


class Updater:
    """Makes updates and counts those in a row that were skipped."""

    def __init__(self, trainable: TrainableModel, passes: Passes, topology: Topology, *, max_skipped: int) -> None:
        self._trainable = trainable
        self._passes = passes
        self._topology = topology
        self._max_skipped = max_skipped
        self._skipped_in_a_row = 0

    def update(
        self,
        rows: Sequence[Row],
        samples: Sequence[TrainSample | ValueSample],
        loss: Callable[..., tuple[Tensor, Tensor]],
        *,
        weight: float,
    ) -> Update:
        """One update by `rows`, which were made of `samples`. Collective.

        `loss` is a `passes.LossFunction` that also takes `scale`, by which to multiply a part of a global loss. Raises
        NonFiniteGradientsError, on every rank, where `max_skipped` updates in a row had gradients that are not finite.
        """
        plan = self._passes.plan(rows)
        batches = self._passes.micro_batches(rows, plan)
        num_positions = sum(row.num_positions for row in rows)
        self._trainable.zero_gradients()
        self._trainable.start_balancing(num_positions, num_micro_batches=len(batches))
        scaled = partial(loss, scale=self._passes.gradient_scale(batches))
        reports = self._passes.run(batches, scaled, forward_only=False)
        norm, applied = self._trainable.apply_gradients()
        self._count(applied, samples)
        return Update(
            applied=applied,
            weight=weight,
            grad_norm=norm,
            update_norm=self._trainable.update_norm() if applied else 0.0,
            router_aux_loss=self._trainable.router_aux_loss(num_positions) if applied else 0.0,
            plan=plan,
            reports=tuple(reports),
        )

    def means(self, updates: Sequence[Update], count: int) -> list[float]:
        """Means of the first `count` numbers of the reports over the updates, by their weights. Collective."""
        totals = torch.zeros(count, dtype=torch.float64, device=self._topology.device)
        weight = sum(update.weight for update in updates if update.applied)
        if self._passes.is_reporter:
            for update in updates:
                if update.applied:
                    for report in update.reports:
                        totals += report[:count].double() * update.weight
        dist.all_reduce(totals, group=self._topology.world_group)
        return [value / weight if weight else 0.0 for value in totals.tolist()]

    def _count(self, applied: bool, samples: Sequence[TrainSample | ValueSample]) -> None:
        self._skipped_in_a_row = 0 if applied else self._skipped_in_a_row + 1
        if self._skipped_in_a_row >= self._max_skipped:
            raise NonFiniteGradientsError(
                f"{self._max_skipped} updates in a row had gradients that are not finite "
                f"(algorithm.max_skipped_updates={self._max_skipped})",
                samples,
            )


def account_of(updates: Sequence[Update]) -> Account:
    applied = [update for update in updates if update.applied]
    number = max(len(applied), 1)
    return Account(
        grad_norm=sum(update.grad_norm for update in applied) / number if applied or not updates else math.nan,
        update_norm=sum(update.update_norm for update in applied) / number,
        num_updates=len(applied),
        num_skipped_updates=len(updates) - len(applied),
        num_micro_batches=sum(len(update.plan.ranks[0]) for update in updates),
        packing_fill=sum(update.plan.fill for update in updates) / len(updates) if updates else 1.0,
        packing_imbalance=max((update.plan.imbalance for update in updates), default=0.0),
        router_aux_loss=sum(update.router_aux_loss for update in applied) / number,
    )
