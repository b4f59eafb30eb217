"""Forward and backward passes of the resident model over packed micro-batches, whatever the layout.

Shape suffixes: S positions of this rank, T response tokens of a micro-batch, C those that this rank predicts, H hidden.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    reduce_from_tensor_model_parallel_region,
)
from torch import Tensor

from seif_nemo.components.batching import Alignment, MicroBatch, Row, make_micro_batch
from seif_nemo.data.packing import PackingPlan, plan_packing
from seif_nemo.models.architecture import Architecture
from seif_nemo.models.experts import label_sequences
from seif_nemo.models.flops import forward_flops
from seif_nemo.models.head import hidden_instead_of_logits
from seif_nemo.models.precision import row_multiple
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.parallel.topology import Topology
from seif_nemo.types.rollouts import LogProbs, TokenIds

# (micro-batch, hidden states before its response tokens [C, H]) -> (loss to differentiate, what to report)
LossFunction = Callable[[MicroBatch, Tensor], tuple[Tensor, Tensor]]
ScoreFunction = Callable[[MicroBatch, Tensor], Tensor]  # the same -> one number per response token [T]


class Passes:
    """Runs Megatron's schedules over rows of any lengths.

    `micro_batch_tokens` bounds the tokens of a micro-batch, over all context-parallel ranks; a longer row is alone.
    `whole_on_each_rank`: each tensor-parallel rank computes all of what its loss functions make of hidden states (a
    value head), and not a share of it (the output projection).
    """

    def __init__(
        self,
        trainable: TrainableModel,
        topology: Topology,
        architecture: Architecture,
        *,
        pad_id: int,
        micro_batch_tokens: int,
        whole_on_each_rank: bool = False,
    ) -> None:
        assert not trainable.config.calculate_per_token_loss, "gradient_scale assumes Megatron's default averaging"
        self._trainable = trainable
        self._topology = topology
        self._architecture = architecture
        self._pad_id = pad_id
        self._budget = micro_batch_tokens
        self._whole_on_each_rank = whole_on_each_rank

    @property
    def is_reporter(self) -> bool:
        """One rank per replica speaks for it: the first tensor- and context-parallel rank of the last stage."""
        topology = self._topology
        return topology.is_last_stage and topology.tensor_rank == topology.context_rank == 0

    def plan(self, rows: Sequence[Row]) -> PackingPlan:
        """Which rows share a micro-batch, of all replicas; the same on every rank."""
        alignment = Alignment.of(self._topology, row_multiple(self._trainable.config))
        lengths = [alignment.padded(max(row.num_positions, 1)) for row in rows]
        costs = [forward_flops(self._architecture, length) for length in lengths]
        return plan_packing(
            lengths,
            costs,
            budget=self._budget,
            ranks=self._topology.data,
            multiple_of=self._topology.pipeline if self._topology.virtual > 1 else 1,
        )

    def micro_batches(self, rows: Sequence[Row], plan: PackingPlan) -> list[MicroBatch]:
        """This rank's share of the plan; as many on every rank."""
        alignment = Alignment.of(self._topology, row_multiple(self._trainable.config))
        return [
            make_micro_batch(
                [rows[index] for index in part],
                pad_id=self._pad_id,
                alignment=alignment,
                device=self._topology.device,
            )
            for part in plan.ranks[self._topology.data_rank]
        ]

    def gradient_scale(self, batches: Sequence[MicroBatch]) -> int:
        """What a micro-batch's part of a global loss is to be multiplied with.

        Megatron divides a loss by the number of micro-batches and sums gradients over replicas divided by their number
        (and multiplies by the context-parallel size): all that is taken back.
        """
        return len(batches) * self._topology.data

    def run(self, batches: Sequence[MicroBatch], loss: LossFunction, *, forward_only: bool) -> list[Tensor]:
        """What `loss` reports for each micro-batch, on the last stage only; gradients unless `forward_only`."""

        def forward_step(iterator: Iterator[MicroBatch], model: Any) -> tuple[Tensor, Callable[..., Any]]:
            batch = next(iterator)
            with hidden_instead_of_logits(model.module, partial(self._select, batch.selected_C)):
                output = model(
                    batch.input_ids_1S,
                    batch.position_ids_1S,
                    None,
                    packed_seq_params=_packed_sequences(batch),
                    padding_mask=self._labels(batch),
                )

            def loss_function(hidden_1CH: Tensor, non_loss_data: bool = False) -> Any:
                value, report = loss(batch, hidden_1CH[0])
                return report if non_loss_data else (value, report)

            return output, loss_function

        for module in self._trainable.modules:
            module.train()  # without dropout it only says that no KV cache is in use
        return get_forward_backward_func()(
            forward_step_func=forward_step,
            data_iterator=[iter(batches) for _ in self._trainable.ddps],
            model=[*self._trainable.ddps],
            num_microbatches=len(batches),
            seq_length=batches[0].input_ids_1S.shape[1],  # only a hint: each micro-batch has its own shape
            micro_batch_size=1,
            forward_only=forward_only,
            collect_non_loss_data=forward_only,
        )

    def per_token(self, pairs: Sequence[tuple[TokenIds, TokenIds]], score: ScoreFunction) -> list[LogProbs]:
        """`score` for each response token of (prompt ids, response ids), fp32, the same on every rank. Collective."""
        rows = [Row(index, prompt, response) for index, (prompt, response) in enumerate(pairs)]
        starts = np.concatenate([[0], np.cumsum([len(row.response_ids) for row in rows])]).astype(np.int64)
        flat = torch.zeros(int(starts[-1]), dtype=torch.float32, device=self._topology.device)
        batches = self.micro_batches(rows, self.plan(rows))

        def loss(batch: MicroBatch, hidden_CH: Tensor) -> tuple[Tensor, Tensor]:
            scores_T = score(batch, hidden_CH)
            return scores_T.sum(), scores_T

        if batches:
            with torch.no_grad():
                parts = self.run(batches, loss, forward_only=True)
            if self.is_reporter:
                for batch, scores_T in zip(batches, parts, strict=True):
                    offset = 0
                    for row in batch.rows:
                        length = len(row.response_ids)
                        start = starts[row.index]
                        flat[start : start + length] = scores_T[offset : offset + length]
                        offset += length
            dist.all_reduce(flat, group=self._topology.world_group)  # every entry comes from one rank: exact
        whole = flat.cpu().numpy()
        return [whole[start:end] for start, end in pairwise(starts)]

    def whole(self, batch: MicroBatch, values_C: Tensor) -> Tensor:
        """[T] on every context-parallel rank from what each has of it; the gradient goes back to where it came from."""
        if self._topology.context == 1:
            return values_C
        values_T = values_C.new_zeros(len(batch.tokens_T)).index_copy(0, batch.places_C, values_C)
        return reduce_from_tensor_model_parallel_region(values_T, group=self._topology.context_group)

    def _labels(self, batch: MicroBatch) -> Tensor | None:
        if not self._trainable.balances_experts:
            return None
        return label_sequences(batch.sequences_1S, len(batch.boundaries_K) - 1)

    def _select(self, selected_C: Tensor, hidden_S1H: Tensor) -> Tensor:
        """The hidden states that predict response tokens, [C, 1, H]; the others cost no logits.

        Each tensor-parallel rank's gradient of them is a part, which the backward of what comes first here sums up; or
        it is all of it already.
        """
        topology = self._topology
        if topology.sequence:
            hidden_S1H = gather_from_sequence_parallel_region(
                hidden_S1H, tensor_parallel_output_grad=not self._whole_on_each_rank, group=topology.tensor_group
            )
        elif not self._whole_on_each_rank:
            hidden_S1H = copy_to_tensor_model_parallel_region(hidden_S1H, group=topology.tensor_group)
        return hidden_S1H.index_select(0, selected_C)


def _packed_sequences(batch: MicroBatch) -> PackedSeqParams:
    return PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=batch.boundaries_K,
        cu_seqlens_kv=batch.boundaries_K,
        max_seqlen_q=batch.longest,
        max_seqlen_kv=batch.longest,
    )
