"""The trained policy behind three verbs: generate, logprobs, train_step.

All verbs are collective: every rank calls them with the same arguments and gets the same whole answer. The work is
shared out over data-parallel replicas inside, in an order that no layout changes.

Shape suffixes: B rows, S positions, T response tokens of a micro-batch, V vocabulary columns of this rank, H hidden.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel import (
    gather_from_sequence_parallel_region,
    scatter_to_sequence_parallel_region,
)
from torch import Tensor
from torch.nn import functional

from seif_nemo.algorithms.kl import k3
from seif_nemo.algorithms.losses import clipped_policy_loss, masked_sum
from seif_nemo.components.batching import MicroBatch, Row, deal, make_micro_batch, split_mini_batches
from seif_nemo.config.algorithm import AlgorithmConfig
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.logprobs import vocab_parallel_logprobs
from seif_nemo.parallel.topology import Topology
from seif_nemo.protocols.engine import Engine
from seif_nemo.protocols.tokenizer import Tokenizer
from seif_nemo.types.rollouts import GenerationRequest, LogProbs, Rollout, SamplingParams, TokenIds
from seif_nemo.types.training import TrainSample, TrainStats

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
        temperature: float = 1.0,
    ) -> None:
        assert not trainable.config.calculate_per_token_loss, "_gradient_scale assumes Megatron's default averaging"
        self._trainable = trainable
        self._engine = engine
        self._pad_id = tokenizer.pad_id
        self._topology = topology
        self._algorithm = algorithm
        self._vocab_size = vocab_size
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

        Each update minimises the clipped policy loss plus `kl_coefficient` times the k3 estimate to the reference,
        averaged over all response tokens of the mini-batch. A group of
        samples shares a mini-batch; `seed` alone decides which groups do.
        Gradients that are not finite skip their update.
        """
        rows = [_row(index, sample) for index, sample in enumerate(samples)]
        totals = torch.zeros(3, dtype=torch.float64, device=self._topology.device)  # policy loss, KL, clipped tokens
        ratio_max = torch.zeros((), dtype=torch.float32, device=self._topology.device)
        norms: list[float] = []
        num_tokens = used_tokens = num_skipped = 0
        for indices in split_mini_batches([sample.group for sample in samples], mini_batches, seed=seed):
            batch_rows = [rows[index] for index in indices]
            tokens = sum(len(row.response_ids) for row in batch_rows)
            if tokens == 0:
                continue
            num_tokens += tokens
            batches = self._micro_batches(batch_rows)
            self._trainable.zero_gradients()
            loss = partial(
                self._loss, kl_coefficient=kl_coefficient, denominator=float(tokens), num_micro_batches=len(batches)
            )
            parts = self._run(batches, loss, forward_only=False)
            norm, updated = self._trainable.apply_gradients()
            if not updated:
                num_skipped += 1
                continue
            norms.append(norm)
            used_tokens += tokens
            for part in parts:
                totals += part[:3].double() * tokens
                ratio_max = torch.maximum(ratio_max, part[3])
        self._engine.invalidate_caches()
        means, largest = self._reduce(totals, ratio_max, denominator=used_tokens)
        return TrainStats(
            loss=means[0] + kl_coefficient * means[1],
            policy_loss=means[0],
            kl=means[1],
            clip_fraction=means[2],
            ratio_max=largest,
            grad_norm=sum(norms) / len(norms) if norms else (math.nan if num_skipped else 0.0),
            learning_rate=self._trainable.learning_rate,
            num_samples=len(samples),
            num_tokens=num_tokens,
            num_updates=len(norms),
            num_skipped_updates=num_skipped,
        )

    # Loss functions: (micro-batch, logits) -> (loss to differentiate, what to report)

    def _score(self, batch: MicroBatch, logits_TV: Tensor, *, temperature: float | None) -> tuple[Tensor, Tensor]:
        logprobs_T = self._logprobs_of(batch, logits_TV, temperature=temperature)
        return logprobs_T.sum(), logprobs_T

    def _loss(
        self,
        batch: MicroBatch,
        logits_TV: Tensor,
        *,
        kl_coefficient: float,
        denominator: float,
        num_micro_batches: int,
    ) -> tuple[Tensor, Tensor]:
        logprobs_T = self._logprobs_of(batch, logits_TV)
        policy = clipped_policy_loss(
            logprobs_T,
            batch.old_logprobs_T,
            batch.advantages_T,
            batch.mask_T,
            clip_low=self._algorithm.clip_low,
            clip_high=self._algorithm.clip_high,
            dual_clip=self._algorithm.dual_clip,
            denominator=denominator,
        )
        kl = masked_sum(k3(logprobs_T, batch.reference_logprobs_T), batch.mask_T, denominator=denominator)
        report = torch.stack([policy.loss, kl, policy.clip_fraction, policy.ratio_max]).detach()
        # Megatron divides a loss by the number of micro-batches and sums gradients over replicas divided by their
        # number; the loss is a part of a global mean already, so both divisions are taken back.
        scale = num_micro_batches * self._topology.data
        return (policy.loss + kl_coefficient * kl) * scale, report

    def _logprobs_of(self, batch: MicroBatch, logits_TV: Tensor, *, temperature: float | None = None) -> Tensor:
        return vocab_parallel_logprobs(
            logits_TV,
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
            with self._select(batch.selected_T) if self._topology.is_last_stage else nullcontext():
                output = model(batch.input_ids_BS, batch.position_ids_BS, None, runtime_gather_output=False)

            def loss_function(logits_1TV: Tensor, non_loss_data: bool = False) -> Any:
                value, report = loss(batch, logits_1TV[0, : len(batch.tokens_T)])
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

    @contextmanager
    def _select(self, selected_T: Tensor) -> Iterator[None]:
        """Inside, the output layer sees the selected positions only: logits come out as [1, T, V].

        Prompt and padding positions cost no logits, which are the largest activation. With sequence parallelism T is
        rounded up to a multiple of the tensor-parallel size.
        """
        topology = self._topology

        def hook(_: torch.nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            hidden_SBH, *rest = arguments
            if topology.sequence:
                hidden_SBH = gather_from_sequence_parallel_region(
                    hidden_SBH, tensor_parallel_output_grad=False, group=topology.tensor_group
                )
            hidden_TH = hidden_SBH.flatten(0, 1).index_select(0, selected_T)
            if topology.sequence:
                padding = -len(hidden_TH) % topology.tensor
                hidden_TH = functional.pad(hidden_TH, (0, 0, 0, padding))
                hidden_TH = scatter_to_sequence_parallel_region(hidden_TH, group=topology.tensor_group)
            return (hidden_TH.unsqueeze(1), *rest)

        handle = self._trainable.module.output_layer.register_forward_pre_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    def _reduce(self, totals: Tensor, ratio_max: Tensor, *, denominator: int) -> tuple[list[float], float]:
        """Sums and maximum over the replicas, the same on every rank."""
        if not self._is_reporter:
            totals.zero_()
        dist.all_reduce(totals, group=self._topology.world_group)
        dist.all_reduce(ratio_max, op=dist.ReduceOp.MAX, group=self._topology.world_group)
        return [value / denominator if denominator else 0.0 for value in totals.tolist()], ratio_max.item()


def _row(index: int, sample: TrainSample) -> Row:
    length = len(sample.response_ids)
    assert len(sample.old_logprobs) == length, f"sample {index}"
    assert len(sample.reference_logprobs) == length, f"sample {index}"
    return Row(
        index,
        sample.prompt_ids,
        sample.response_ids,
        old_logprobs=sample.old_logprobs,
        reference_logprobs=sample.reference_logprobs,
        advantage=sample.advantage,
    )
