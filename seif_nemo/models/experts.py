"""Mixture-of-experts layers: a router that chooses experts for each token, and the experts on their ranks.

No token is dropped. A token's weights are the softmax of the router's fp32 logits: over all experts, of which the
chosen ones keep their shares, or, where the weights sum to 1, over the chosen ones, which is the same as dividing those
shares by their sum.

Shapes: S sequence, B batch, N tokens of this rank, E experts.
"""

import torch
from megatron.core.models.backends import BackendSpecProvider
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import reduce_from_tensor_model_parallel_region
from megatron.core.transformer.moe.moe_layer import MoELayer, MoESubmodules
from megatron.core.transformer.moe.moe_utils import MoEAuxLossAutoScaler, ProcessGroupCollection, router_gating_linear
from megatron.core.transformer.moe.router import TopKRouter
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor


class BalancedRouter(TopKRouter):
    """Megatron-core's router with a load-balancing loss that does not depend on how tokens fall into micro-batches.

    Of one micro-batch with n real tokens it is E Σ f P (Fedus et al., arXiv 2101.03961, equation 4; f: share of the
    n · top-k choices, P: mean softmax): 1 if balanced. Over a mini-batch it is averaged with n as the weight, where
    megatron-core counts every micro-batch the same, padding included. f is of the micro-batch on all ranks that share
    its sequence.
    """

    def __init__(self, config: TransformerConfig, pg_collection: ProcessGroupCollection | None = None) -> None:
        super().__init__(config=config, pg_collection=pg_collection)
        self.mean_tokens = 1.0  # real tokens per micro-batch and replica, over the mini-batch
        self.balance = torch.zeros(())  # n E Σ f P of this rank's tokens, summed over micro-batches

    def gating(self, input: Tensor) -> Tensor:
        """Logits [S, B, E] in fp32. (Megatron-core's own moves the weight to "the GPU" at each call.)"""
        return router_gating_linear(input, self.weight, None, torch.float32)

    def forward(self, input: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`padding_mask` [S, B] is True for padding. Stages after the first get that of the whole sequence."""
        if padding_mask is not None and len(padding_mask) != len(input):
            padding_mask = padding_mask.chunk(len(padding_mask) // len(input))[self.tp_group.rank()]
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
        counts_E = reduce_from_tensor_model_parallel_region(routing_map.sum(dim=0).float(), self.tp_cp_group)
        total = counts_E.sum().clamp(min=1)  # n · top-k; a micro-batch of padding alone has none
        balance = self.config.num_moe_experts * (scores_for_aux_loss.sum(dim=0) * counts_E).sum() / total
        self.balance = self.balance.to(balance.device) + balance.detach()
        # Megatron-core averages what is handed on here over micro-batches and replicas.
        return MoEAuxLossAutoScaler.apply(probs, balance * (coefficient / self.mean_tokens))


def routers(model: GPTModel) -> list[BalancedRouter]:
    """The routers of this pipeline stage's layers."""
    return [module for module in model.modules() if isinstance(module, BalancedRouter)]


def expert_layer(backend: BackendSpecProvider, *, grouped: bool) -> ModuleSpec:
    """The feed-forward part of a layer. `grouped`: all experts of a rank in one matrix product, if the backend can."""
    module, submodules = backend.grouped_mlp_modules(grouped, False)
    experts = ModuleSpec(module=module, submodules=submodules)
    return ModuleSpec(module=MoELayer, submodules=MoESubmodules(experts=experts, router=BalancedRouter))
