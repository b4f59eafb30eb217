"""Mixture-of-experts layers: a router that chooses experts for each token, and the experts on their ranks.

No token is dropped. A token's weights are the softmax of the router's fp32 logits: over all experts, of which the
chosen ones keep their shares, or, where the weights sum to 1, over the chosen ones, which is the same as dividing those
shares by their sum.

Shapes: S positions, B batch, N tokens of this rank, E experts, K sequences of a micro-batch and one more for padding.
"""

from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.models.backends import BackendSpecProvider
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import reduce_from_tensor_model_parallel_region
from megatron.core.transformer.moe.moe_layer import MoELayer, MoESubmodules
from megatron.core.transformer.moe.moe_utils import MoEAuxLossAutoScaler, ProcessGroupCollection, router_gating_linear
from megatron.core.transformer.moe.router import TopKRouter
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

_COUNT = 1 << 32  # the unit in which `label_sequences` counts sequences; below it stands the token's own


def label_sequences(numbers: Tensor, count: int) -> Tensor:
    """What a model that balances its experts takes as `padding_mask`: [B, S], int64.

    `numbers` [B, S] names each token's sequence, from 1 to `count`; 0 is padding. A rank may see too few positions to
    know the count, which all that share the micro-batch need: it goes along with every number.
    """
    return numbers + count * _COUNT


class LabelledMoELayer(MoELayer):
    """Megatron-core's layer, whose router is told each token's sequence. It makes the padding mask a bool [S, B]."""

    def forward(
        self, hidden_states: Tensor, intermediate_tensors: Any = None, padding_mask: Tensor | None = None
    ) -> Any:
        """`padding_mask` [B, S] is of `label_sequences`; the router gets it one-hot, [S, B, K] with padding first."""
        if padding_mask is not None:
            count = int(padding_mask[0, 0]) // _COUNT
            padding_mask = F.one_hot(padding_mask % _COUNT, count + 1)
        return super().forward(hidden_states, intermediate_tensors, padding_mask)


class BalancedRouter(TopKRouter):
    """Megatron-core's router with a load-balancing loss that does not depend on how tokens fall into micro-batches.

    Of one sequence with n real tokens it is E Σ f P (Fedus et al., arXiv 2101.03961, equation 4; f: share of the
    n · top-k choices, P: mean softmax): 1 if balanced. Over a mini-batch it is averaged with n as the weight.
    Megatron-core takes f of a whole micro-batch, and counts every micro-batch the same, padding included.
    """

    def __init__(self, config: TransformerConfig, pg_collection: ProcessGroupCollection | None = None) -> None:
        super().__init__(config=config, pg_collection=pg_collection)
        self.mean_tokens = 1.0  # real tokens per micro-batch and replica, over the mini-batch
        self.balance = torch.zeros(())  # n E Σ f P of this rank's tokens, summed over sequences
        self._sequences_N: Tensor | None = None  # of the call under way: each token's, 0 for padding
        self._num_sequences = 0  # K

    def gating(self, input: Tensor) -> Tensor:
        """Logits [S, B, E] in fp32. (Megatron-core's own moves the weight to "the GPU" at each call.)"""
        return router_gating_linear(input, self.weight, None, torch.float32)

    def forward(self, input: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`padding_mask` [S, B, K] is of LabelledMoELayer. Stages after the first get that of all positions."""
        self._sequences_N, self._num_sequences = None, 0
        if padding_mask is not None:
            if len(padding_mask) != len(input):
                padding_mask = padding_mask.chunk(len(padding_mask) // len(input))[self.tp_group.rank()]
            self._sequences_N, self._num_sequences = padding_mask.int().argmax(dim=2).flatten(), padding_mask.shape[2]
            padding_mask = padding_mask[:, :, 0]
        return super().forward(input, padding_mask)

    def _apply_aux_loss(
        self,
        probs: Tensor,
        scores_for_aux_loss: Tensor,
        routing_map: Tensor,
        with_padding_mask: bool = False,
    ) -> Tensor:
        coefficient = self.get_aux_loss_coeff("aux_loss")
        if coefficient == 0:
            return probs
        assert self._sequences_N is not None, "a load-balancing loss needs each token's sequence"
        zeros_KE = scores_for_aux_loss.new_zeros(self._num_sequences, scores_for_aux_loss.shape[1])
        counts_KE = zeros_KE.index_add(0, self._sequences_N, routing_map.to(zeros_KE.dtype))
        counts_KE = reduce_from_tensor_model_parallel_region(counts_KE, self.tp_cp_group)  # all of each sequence
        shares_KE = counts_KE / counts_KE.sum(dim=1, keepdim=True).clamp(min=1)  # padding made no choice
        scores_KE = zeros_KE.index_add(0, self._sequences_N, scores_for_aux_loss)
        balance = scores_for_aux_loss.shape[1] * (scores_KE * shares_KE).sum()
        self.balance = self.balance.to(balance.device) + balance.detach()
        # Megatron-core averages what is handed on here over micro-batches and replicas.
        return MoEAuxLossAutoScaler.apply(probs, balance * (coefficient / self.mean_tokens))


def routers(model: GPTModel) -> list[BalancedRouter]:
    """The routers of one model chunk's layers."""
    return [module for module in model.modules() if isinstance(module, BalancedRouter)]


def expert_layer(backend: BackendSpecProvider, *, grouped: bool) -> type[MoELayer]:
    """The feed-forward part of a layer. `grouped`: all experts of a rank in one matrix product, if the backend can.

    It is a class, because megatron-core warns of every module in a ModuleSpec that is not one of its own.
    """
    module, submodules = backend.grouped_mlp_modules(grouped, False)
    experts = ModuleSpec(module=module, submodules=submodules)
    parts = MoESubmodules(experts=experts, router=BalancedRouter)

    class ExpertLayer(LabelledMoELayer):
        def __init__(self, config: TransformerConfig) -> None:
            super().__init__(config, parts)

    return ExpertLayer
