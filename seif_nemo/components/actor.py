"""The trained policy behind three verbs: generate, logprobs, train_step.

All verbs are collective: every rank calls them with the same arguments and gets the same whole answer. The work is
shared out over data-parallel replicas inside, in an order that no layout changes.

Shape suffixes: B rows, S positions, T response tokens of a micro-batch, V vocabulary columns of this rank, H hidden.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
)
from torch import Tensor

from seif_nemo.algorithms import means
from seif_nemo.algorithms.cispo import cispo_losses
from seif_nemo.algorithms.gspo import gspo_losses
from seif_nemo.algorithms.kl import KL_ESTIMATORS
from seif_nemo.algorithms.losses import TokenLosses, weighted_sum
from seif_nemo.algorithms.ppo import clipped_losses
from seif_nemo.components.batching import MicroBatch, Row, deal, make_micro_batch, split_mini_batches
from seif_nemo.config.algorithm import AlgorithmConfig, PolicyLoss
from seif_nemo.models.head import hidden_instead_of_logits, output_weight
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.linear_logprobs import TokenScores, linear_logprobs
from seif_nemo.parallel.topology import Topology
from seif_nemo.protocols.engine import Engine
from seif_nemo.protocols.tokenizer import Tokenizer
from seif_nemo.types.rollouts import GenerationRequest, LogProbs, Rollout, SamplingParams, TokenIds
from seif_nemo.types.training import TrainSample, TrainStats


class NonFiniteGradientsError(RuntimeError):
    """Too many updates in a row had gradients that are not finite. `samples` are those of the last one."""

    def __init__(self, message: str, samples: Sequence[TrainSample]) -> None:
        super().__init__(message)
        self.samples = tuple(samples)


LossFunction = Callable[[MicroBatch, Tensor], tuple[Tensor, Tensor]]


class Actor:
    """Generates, scores and learns with the weights that are resident in `trainable`.

    `vocab_size` is the model's vocabulary without the padding that tensor parallelism adds. `temperature` is that of
    the rollouts: log-probs are those of the distribution they were sampled from.
    """

    def __init__(
        self,
        trainable: TrainableModel,
        engine: Engine,
        tokenizer: Tokenizer,
        topology: Topology,
        algorithm: AlgorithmConfig,
        *,
        vocab_size: int,
        max_new_tokens: int,
        temperature: float = 1.0,
    ) -> None:
        assert not trainable.config.calculate_per_token_loss, "_gradient_scale assumes Megatron's default averaging"
        self._trainable = trainable
        self._engine = engine
        self._pad_id = tokenizer.pad_id
        self._topology = topology
        self._algorithm = algorithm
        self._vocab_size = vocab_size
        self._max_new_tokens = max_new_tokens
        self._skipped_in_a_row = 0
        self._temperature = temperature

    def generate(
        self, requests: Sequence[GenerationRequest], sampling: SamplingParams, *, weight_version: str
    ) -> list[Rollout]:
        """One rollout per request, in order (see `protocols/engine.py`)."""
        return self._engine.generate(requests, sampling, weight_version=weight_version)

    def logprobs(
        self, pairs: Sequence[tuple[TokenIds, TokenIds]], *, temperature: float | None = None
    ) -> list[LogProbs]:
        """Log-probs of each response token of (prompt ids, response ids), by the training forward pass; fp32.

        At the rollouts' temperature unless another is given.
        """
        rows = [Row(index, prompt, response) for index, (prompt, response) in enumerate(pairs)]
        starts = np.concatenate([[0], np.cumsum([len(row.response_ids) for row in rows])]).astype(np.int64)
        flat = torch.zeros(int(starts[-1]), dtype=torch.float32, device=self._topology.device)
        batches = self._micro_batches(rows)
        if batches:
            with torch.no_grad():
                parts = self._run(batches, partial(self._score, temperature=temperature), forward_only=True)
            if self._is_reporter:
                for batch, logprobs_T in zip(batches, parts, strict=True):
                    offset = 0
                    for row in batch.rows:
                        length = len(row.response_ids)
                        start = starts[row.index]
                        flat[start : start + length] = logprobs_T[offset : offset + length]
                        offset += length
            dist.all_reduce(flat, group=self._topology.world_group)  # every entry comes from one rank: exact
        whole = flat.cpu().numpy()
        return [whole[start:end] for start, end in pairwise(starts)]

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
        totals = torch.zeros(4, dtype=torch.float64, device=self._topology.device)  # policy loss, KL, entropy, clipped
        ratio_max = torch.zeros((), dtype=torch.float32, device=self._topology.device)
        norms: list[float] = []
        update_norms: list[float] = []
        num_tokens = num_skipped = 0
        used = 0.0
        for indices in split_mini_batches([sample.group for sample in samples], mini_batches, seed=seed):
            batch_rows = [rows[index] for index in indices]
            lengths = [len(row.response_ids) for row in batch_rows]
            denominator = means.denominator(mean, lengths, max_tokens=self._max_new_tokens)
            if denominator == 0:
                continue
            num_tokens += sum(lengths)
            batches = self._micro_batches(batch_rows)
            self._trainable.zero_gradients()
            loss = partial(
                self._loss, kl_coefficient=kl_coefficient, denominator=denominator, num_micro_batches=len(batches)
            )
            parts = self._run(batches, loss, forward_only=False)
            norm, updated = self._trainable.apply_gradients()
            if not updated:
                num_skipped += 1
                self._count_skipped([samples[index] for index in indices])
                continue
            self._skipped_in_a_row = 0
            norms.append(norm)
            update_norms.append(self._trainable.update_norm())
            used += denominator
            for part in parts:
                totals += part[:4].double() * denominator
                ratio_max = torch.maximum(ratio_max, part[4])
        self._engine.invalidate_caches()
        (policy, kl_mean, entropy, clipped), largest = self._reduce(totals, ratio_max, denominator=used)
        return TrainStats(
            loss=policy + kl_coefficient * kl_mean - self._algorithm.entropy_coefficient * entropy,
            policy_loss=policy,
            kl=kl_mean,
            entropy=entropy,
            clip_fraction=clipped,
            ratio_max=largest,
            grad_norm=sum(norms) / len(norms) if norms else (math.nan if num_skipped else 0.0),
            update_norm=sum(update_norms) / len(norms) if norms else 0.0,
            learning_rate=self._trainable.learning_rate,
            num_samples=len(samples),
            num_tokens=num_tokens,
            num_updates=len(norms),
            num_skipped_updates=num_skipped,
        )

    def _count_skipped(self, samples: Sequence[TrainSample]) -> None:
        self._skipped_in_a_row += 1
        limit = self._algorithm.max_skipped_updates
        if self._skipped_in_a_row >= limit:
            raise NonFiniteGradientsError(
                f"{limit} updates in a row had gradients that are not finite (algorithm.max_skipped_updates={limit})",
                samples,
            )

    # Loss functions: (micro-batch, hidden states of its response tokens) -> (loss to differentiate, what to report)

    def _score(self, batch: MicroBatch, hidden_TH: Tensor, *, temperature: float | None) -> tuple[Tensor, Tensor]:
        logprobs_T = self._scores_of(batch, hidden_TH, temperature=temperature).logprobs_T
        return logprobs_T.sum(), logprobs_T

    def _loss(
        self,
        batch: MicroBatch,
        hidden_TH: Tensor,
        *,
        kl_coefficient: float,
        denominator: float,
        num_micro_batches: int,
    ) -> tuple[Tensor, Tensor]:
        algorithm = self._algorithm
        scores = self._scores_of(batch, hidden_TH)
        found = self._policy_losses(batch, scores.logprobs_T)
        policy = weighted_sum(found.losses_T, batch.policy_weights_T, denominator=denominator)
        kl_T = KL_ESTIMATORS[algorithm.kl_estimator](scores.logprobs_T, batch.reference_logprobs_T)
        kl_mean = weighted_sum(kl_T, batch.mean_weights_T, denominator=denominator)
        entropy = weighted_sum(scores.entropies_T, batch.mean_weights_T, denominator=denominator)
        clipped = weighted_sum(found.clipped_T.float(), batch.mean_weights_T, denominator=denominator)
        ratio_max = (found.ratios_T * batch.mask_T).max()
        report = torch.stack([policy, kl_mean, entropy, clipped, ratio_max]).detach()
        # Megatron divides a loss by the number of micro-batches and sums gradients over replicas divided by their
        # number; the loss is a part of a global mean already, so both divisions are taken back.
        scale = num_micro_batches * self._topology.data
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

    def _scores_of(self, batch: MicroBatch, hidden_TH: Tensor, *, temperature: float | None = None) -> TokenScores:
        return linear_logprobs(
            hidden_TH,
            output_weight(self._trainable.module),
            batch.tokens_T,
            vocab_size=self._vocab_size,
            temperature=self._temperature if temperature is None else temperature,
            group=self._topology.tensor_group,
        )

    # Passes through the model

    @property
    def _is_reporter(self) -> bool:
        """One rank per replica speaks for it: the first tensor-parallel rank of the last stage."""
        return self._topology.is_last_stage and self._topology.tensor_rank == 0

    def _micro_batches(self, rows: Sequence[Row]) -> list[MicroBatch]:
        """This rank's share; the same number on every rank."""
        topology = self._topology
        plan = deal(
            [row.num_positions for row in rows],
            max_rows=self._algorithm.micro_batch_rows,
            ranks=topology.data,
            rank=topology.data_rank,
        )
        return [
            make_micro_batch(
                [rows[index] for index in part],
                pad_id=self._pad_id,
                multiple_of=topology.tensor if topology.sequence else 1,
                device=topology.device,
            )
            for part in plan
        ]

    def _run(self, batches: Sequence[MicroBatch], loss: LossFunction, *, forward_only: bool) -> list[Tensor]:
        """Megatron's schedule over the micro-batches; what `loss` reports for each, on the last stage only."""

        def forward_step(iterator: Iterator[MicroBatch], model: torch.nn.Module) -> tuple[Tensor, Callable[..., Any]]:
            batch = next(iterator)
            with hidden_instead_of_logits(self._trainable.module, partial(self._select, batch.selected_T)):
                output = model(batch.input_ids_BS, batch.position_ids_BS, None)

            def loss_function(hidden_1TH: Tensor, non_loss_data: bool = False) -> Any:
                value, report = loss(batch, hidden_1TH[0])
                return report if non_loss_data else (value, report)

            return output, loss_function

        self._trainable.module.train()  # without dropout it only says that no KV cache is in use
        rows, positions = batches[0].input_ids_BS.shape
        return get_forward_backward_func()(
            forward_step_func=forward_step,
            data_iterator=iter(batches),
            model=self._trainable.ddp,
            num_microbatches=len(batches),
            seq_length=positions,  # only a hint: each micro-batch has its own shape
            micro_batch_size=rows,
            forward_only=forward_only,
            collect_non_loss_data=forward_only,
        )

    def _select(self, selected_T: Tensor, hidden_SBH: Tensor) -> Tensor:
        """The hidden states that predict response tokens, [T, 1, H]; the others cost no logits.

        Each tensor-parallel rank's gradient of them is a part, which the backward of what comes first here sums up.
        """
        topology = self._topology
        if topology.sequence:
            hidden_SBH = gather_from_sequence_parallel_region(hidden_SBH, group=topology.tensor_group)
        else:
            hidden_SBH = copy_to_tensor_model_parallel_region(hidden_SBH, group=topology.tensor_group)
        return hidden_SBH.flatten(0, 1).index_select(0, selected_T).unsqueeze(1)

    def _reduce(self, totals: Tensor, ratio_max: Tensor, *, denominator: float) -> tuple[list[float], float]:
        """Sums and maximum over the replicas, the same on every rank."""
        if not self._is_reporter:
            totals.zero_()
        dist.all_reduce(totals, group=self._topology.world_group)
        dist.all_reduce(ratio_max, op=dist.ReduceOp.MAX, group=self._topology.world_group)
        return [value / denominator if denominator else 0.0 for value in totals.tolist()], ratio_max.item()


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
