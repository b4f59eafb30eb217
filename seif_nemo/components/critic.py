"""The value model of PPO behind two verbs: values, train_step.

All verbs are collective: every rank calls them with the same arguments and gets the same whole answer. The weights are
those that are resident in `trainable`, whose model has a value head.

Shape suffixes: T response tokens of a micro-batch, C those of them that this rank predicts, H hidden.
"""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from seif_nemo.algorithms.losses import weighted_sum
from seif_nemo.algorithms.value_loss import clipped_value_losses
from seif_nemo.components.batching import MicroBatch, Row, split_mini_batches
from seif_nemo.components.passes import Passes
from seif_nemo.components.updates import Update, Updater, account_of
from seif_nemo.models.architecture import Architecture
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.models.value_head import value_head
from seif_nemo.parallel.topology import Topology
from seif_nemo.types.rollouts import LogProbs, TokenIds
from seif_nemo.types.training import CriticStats, ValueSample


class Critic:
    """Values responses and learns their returns with the weights that are resident in `trainable`."""

    def __init__(
        self,
        trainable: TrainableModel,
        topology: Topology,
        architecture: Architecture,
        *,
        pad_id: int,
        micro_batch_tokens: int,
        value_clip: float,
        max_skipped_updates: int,
    ) -> None:
        self._trainable = trainable
        self._value_clip = value_clip
        self._passes = Passes(
            trainable,
            topology,
            architecture,
            pad_id=pad_id,
            micro_batch_tokens=micro_batch_tokens,
            whole_on_each_rank=True,
        )
        self._updater = Updater(trainable, self._passes, topology, max_skipped=max_skipped_updates)

    def values(self, pairs: Sequence[tuple[TokenIds, TokenIds]]) -> list[LogProbs]:
        """The value of the state before each response token of (prompt ids, response ids), fp32."""
        return self._passes.per_token(pairs, self._values_of)

    def train_step(self, samples: Sequence[ValueSample], *, mini_batches: int, epochs: int, seed: int) -> CriticStats:
        """`epochs` passes over the samples, each in `mini_batches` updates of the resident weights.

        Each update minimises the clipped value loss, averaged over the tokens of the mini-batch. A group of samples
        shares a mini-batch; `seed` and the number of the pass alone decide which groups do. Gradients that are not
        finite skip their update; raises NonFiniteGradientsError, on every rank, where too many in a row do.
        """
        rows = [_row(index, sample) for index, sample in enumerate(samples)]
        groups = [sample.group for sample in samples]
        updates: list[Update] = []
        for epoch in range(epochs):
            for indices in split_mini_batches(groups, mini_batches, seed=seed + epoch):
                batch_rows = [rows[index] for index in indices]
                num_tokens = sum(len(row.response_ids) for row in batch_rows)
                if num_tokens == 0:
                    continue
                loss = partial(self._loss, denominator=num_tokens)
                chosen = [samples[index] for index in indices]
                updates.append(self._updater.update(batch_rows, chosen, loss, weight=num_tokens))
        loss, clipped = self._updater.means(updates, 2)
        account = account_of(updates)
        values, returns = (
            np.concatenate([getattr(sample, name) for sample in samples]).astype(np.float64)
            for name in ("values", "returns")
        )
        return CriticStats(
            loss=loss,
            clip_fraction=clipped,
            explained_variance=explained_variance(values, returns),
            value_mean=float(values.mean()) if len(values) else math.nan,
            return_mean=float(returns.mean()) if len(returns) else math.nan,
            grad_norm=account.grad_norm,
            update_norm=account.update_norm,
            learning_rate=self._trainable.learning_rate,
            num_tokens=len(values),
            num_updates=account.num_updates,
            num_skipped_updates=account.num_skipped_updates,
            router_aux_loss=account.router_aux_loss,
        )

    def _values_of(self, batch: MicroBatch, hidden_CH: Tensor) -> Tensor:
        return self._passes.whole(batch, value_head(self._trainable.modules[-1])(hidden_CH))

    def _loss(self, batch: MicroBatch, hidden_CH: Tensor, *, denominator: float, scale: int) -> tuple[Tensor, Tensor]:
        losses_T, clipped_T = clipped_value_losses(
            self._values_of(batch, hidden_CH), batch.old_values_T, batch.returns_T, clip=self._value_clip
        )
        loss = weighted_sum(losses_T, batch.mean_weights_T, denominator=denominator)
        clipped = weighted_sum(clipped_T.float(), batch.mean_weights_T, denominator=denominator)
        return loss * scale, torch.stack([loss, clipped]).detach()


def explained_variance(values: np.ndarray, returns: np.ndarray) -> float:
    """1 - var(returns - values) / var(returns): 1 for values that are right, 0 for a constant; NaN without variance."""
    variance = float(returns.var()) if len(returns) else 0.0
    return 1 - float((returns - values).var()) / variance if variance > 0 else math.nan


def _row(index: int, sample: ValueSample) -> Row:
    assert len(sample.values) == len(sample.returns) == len(sample.response_ids), f"sample {index}"
    return Row(index, sample.prompt_ids, sample.response_ids, old_values=sample.values, returns=sample.returns)
