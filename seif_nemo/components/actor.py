"""The trained policy behind three verbs: generate, logprobs, train_step.

All verbs are collective: every rank calls them with the same arguments and gets the same whole answer. The work is
shared out over data-parallel replicas inside, in an order that no layout changes.

Shape suffixes: T response tokens of a micro-batch, C those of them that this rank predicts, H hidden.
"""

from collections.abc import Sequence
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from seif_nemo.algorithms import means
from seif_nemo.algorithms.cispo import cispo_losses
from seif_nemo.algorithms.gspo import gspo_losses
from seif_nemo.algorithms.kl import KL_ESTIMATORS
from seif_nemo.algorithms.losses import TokenLosses, weighted_sum
from seif_nemo.algorithms.ppo import clipped_losses
from seif_nemo.components.batching import MicroBatch, Row, split_mini_batches
from seif_nemo.components.passes import Passes
from seif_nemo.components.updates import Update, Updater, account_of
from seif_nemo.config.algorithm import AlgorithmConfig, PolicyLoss
from seif_nemo.models.architecture import Architecture
from seif_nemo.models.head import output_weight
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.linear_logprobs import TokenScores, linear_logprobs
from seif_nemo.parallel.topology import Topology
from seif_nemo.protocols.engine import Engine, OnFinished
from seif_nemo.protocols.tokenizer import Tokenizer
from seif_nemo.types.rollouts import GenerationRequest, LogProbs, Rollout, SamplingParams, TokenIds
from seif_nemo.types.training import TrainSample, TrainStats


class Actor:
    """Generates, scores and learns with the weights that are resident in `trainable`.

    `temperature` is that of the rollouts: log-probs are those of the distribution they were sampled from.
    """

    def __init__(
        self,
        trainable: TrainableModel,
        engine: Engine,
        tokenizer: Tokenizer,
        topology: Topology,
        algorithm: AlgorithmConfig,
        architecture: Architecture,
        *,
        micro_batch_tokens: int,
        max_new_tokens: int,
        temperature: float = 1.0,
    ) -> None:
        self._trainable = trainable
        self._engine = engine
        self._topology = topology
        self._algorithm = algorithm
        self._architecture = architecture
        self._passes = Passes(
            trainable, topology, architecture, pad_id=tokenizer.pad_id, micro_batch_tokens=micro_batch_tokens
        )
        self._max_new_tokens = max_new_tokens
        self._updater = Updater(trainable, self._passes, topology, max_skipped=algorithm.max_skipped_updates)
        self._temperature = temperature

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        sampling: SamplingParams,
        *,
        weight_version: str,
        on_finished: OnFinished | None = None,
    ) -> list[Rollout]:
        """One rollout per request, in order (see `protocols/engine.py`)."""
        return self._engine.generate(requests, sampling, weight_version=weight_version, on_finished=on_finished)

    def logprobs(
        self, pairs: Sequence[tuple[TokenIds, TokenIds]], *, temperature: float | None = None
    ) -> list[LogProbs]:
        """Log-probs of each response token of (prompt ids, response ids), by the training forward pass; fp32.

        At the rollouts' temperature unless another is given.
        """
        return self._passes.per_token(pairs, partial(self._score, temperature=temperature))

    def train_step(
        self, samples: Sequence[TrainSample], *, kl_coefficient: float, mini_batches: int, seed: int
    ) -> TrainStats:
        """One pass over the samples in `mini_batches` updates of the resident weights.

        Each update minimises the policy loss plus `kl_coefficient` times the KL estimate to the reference minus the
        entropy bonus, averaged over the mini-batch as `algorithm.loss_mean` says. A group of samples shares a
        mini-batch; `seed` alone decides which groups do. Gradients that are not finite skip their update; raises
        NonFiniteGradientsError, on every rank, when that happens `algorithm.max_skipped_updates` times in a row.
        """
        mean = self._algorithm.loss_mean
        rows = [_row(i, sample, means.token_weight(mean, len(sample.response_ids))) for i, sample in enumerate(samples)]
        updates: list[Update] = []
        num_tokens = 0
        for indices in split_mini_batches([sample.group for sample in samples], mini_batches, seed=seed):
            batch_rows = [rows[index] for index in indices]
            lengths = [len(row.response_ids) for row in batch_rows]
            denominator = means.denominator(mean, lengths, max_tokens=self._max_new_tokens)
            if denominator == 0:
                continue
            num_tokens += sum(lengths)
            loss = partial(self._loss, kl_coefficient=kl_coefficient, denominator=denominator)
            chosen = [samples[index] for index in indices]
            updates.append(self._updater.update(batch_rows, chosen, loss, weight=denominator))
        self._engine.invalidate_caches()
        policy, kl_mean, entropy, clipped = self._updater.means(updates, 4)
        account = account_of(updates)
        return TrainStats(
            loss=policy + kl_coefficient * kl_mean - self._algorithm.entropy_coefficient * entropy,
            policy_loss=policy,
            kl=kl_mean,
            entropy=entropy,
            clip_fraction=clipped,
            ratio_max=self._largest_ratio(updates),
            grad_norm=account.grad_norm,
            update_norm=account.update_norm,
            learning_rate=self._trainable.learning_rate,
            num_samples=len(samples),
            num_tokens=num_tokens,
            num_updates=account.num_updates,
            num_skipped_updates=account.num_skipped_updates,
            num_micro_batches=account.num_micro_batches,
            packing_fill=account.packing_fill,
            packing_imbalance=account.packing_imbalance,
            router_aux_loss=account.router_aux_loss,
        )

    # Loss functions, see `passes.LossFunction`

    def _score(self, batch: MicroBatch, hidden_CH: Tensor, *, temperature: float | None) -> Tensor:
        return self._scores_of(batch, hidden_CH, temperature=temperature).logprobs_T

    def _loss(
        self, batch: MicroBatch, hidden_CH: Tensor, *, kl_coefficient: float, denominator: float, scale: int
    ) -> tuple[Tensor, Tensor]:
        algorithm = self._algorithm
        scores = self._scores_of(batch, hidden_CH)
        found = self._policy_losses(batch, scores.logprobs_T)
        policy = weighted_sum(found.losses_T, batch.policy_weights_T, denominator=denominator)
        kl_T = KL_ESTIMATORS[algorithm.kl_estimator](scores.logprobs_T, batch.reference_logprobs_T)
        kl_mean = weighted_sum(kl_T, batch.mean_weights_T, denominator=denominator)
        entropy = weighted_sum(scores.entropies_T, batch.mean_weights_T, denominator=denominator)
        clipped = weighted_sum(found.clipped_T.float(), batch.mean_weights_T, denominator=denominator)
        ratio_max = (found.ratios_T * batch.mask_T).max()
        report = torch.stack([policy, kl_mean, entropy, clipped, ratio_max]).detach()
        loss = policy
        if kl_coefficient:
            loss = loss + kl_coefficient * kl_mean
        if algorithm.entropy_coefficient:
            loss = loss - algorithm.entropy_coefficient * entropy
        return loss * scale, report

    def _policy_losses(self, batch: MicroBatch, logprobs_T: Tensor) -> TokenLosses:
        algorithm = self._algorithm
        low, high = algorithm.clip_low, algorithm.clip_high
        old_T, advantages_T = batch.old_logprobs_T, batch.advantages_T
        match algorithm.policy_loss:
            case PolicyLoss.clip:
                dual = algorithm.dual_clip
                return clipped_losses(logprobs_T, old_T, advantages_T, clip_low=low, clip_high=high, dual_clip=dual)
            case PolicyLoss.gspo:
                rows = max(len(batch.rows), 1)
                return gspo_losses(logprobs_T, old_T, advantages_T, batch.rows_T, rows, clip_low=low, clip_high=high)
            case PolicyLoss.cispo:
                return cispo_losses(logprobs_T, old_T, advantages_T, clip_low=low, clip_high=high)

    def _scores_of(self, batch: MicroBatch, hidden_CH: Tensor, *, temperature: float | None = None) -> TokenScores:
        scores = linear_logprobs(
            hidden_CH,
            output_weight(self._trainable.modules[-1]),
            batch.tokens_T[batch.places_C],
            vocab_size=self._architecture.vocab_size,
            temperature=self._temperature if temperature is None else temperature,
            group=self._topology.tensor_group,
        )
        return TokenScores(self._passes.whole(batch, scores.logprobs_T), self._passes.whole(batch, scores.entropies_T))

    def _largest_ratio(self, updates: Sequence[Update]) -> float:
        """The same on every rank; it is the fifth number that `_loss` reports."""
        largest = torch.zeros((), dtype=torch.float32, device=self._topology.device)
        for update in updates:
            if update.applied:
                for report in update.reports:
                    largest = torch.maximum(largest, report[4])
        dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=self._topology.world_group)
        return largest.item()


def _row(index: int, sample: TrainSample, token_weight: float) -> Row:
    length = len(sample.response_ids)
    for values in (sample.old_logprobs, sample.reference_logprobs, sample.advantages, sample.weights):
        assert values is None or len(values) == length, f"sample {index}"
    return Row(
        index,
        sample.prompt_ids,
        sample.response_ids,
        old_logprobs=sample.old_logprobs,
        reference_logprobs=sample.reference_logprobs,
        advantages=sample.advantages,
        weights=sample.weights,
        token_weight=token_weight,
    )
