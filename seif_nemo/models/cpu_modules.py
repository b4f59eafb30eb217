"""Layers in plain PyTorch with Transformer Engine's parameter names, for machines without Transformer Engine.

The same names serve CPU and GPU, so that one weight converter and one checkpoint format do.
Shapes: S sequence, B batch, N query heads, K key/value heads (of this rank), D head size.
"""

from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.models.backends import BackendSpecProvider
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.mlp import MLPSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.utils import get_pg_size
from torch import Tensor
from torch.nn.parameter import Parameter


class RMSNorm(torch.nn.Module):
    """RMSNorm (arXiv 1910.07467) over the last dimension. Its weight is marked for sequence parallelism."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__()
        _check_norm(config)
        self.eps = eps
        self.shape = (hidden_size,)
        self.weight = _norm_weight(config, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.shape, self.weight, self.eps)


class ColumnLinear(ColumnParallelLinear):
    """Megatron-core's column-parallel linear. With one tensor-parallel rank it is `F.linear` without the detour."""

    def __init__(self, input_size: int, output_size: int, *, config: TransformerConfig, **kwargs: Any) -> None:
        super().__init__(input_size, output_size, config=config, **kwargs)
        self._whole = get_pg_size(self.tp_group) == 1

    def forward(
        self, input_: Tensor, weight: Tensor | None = None, runtime_gather_output: bool | None = None
    ) -> tuple[Tensor, Tensor | None]:
        if not self._whole:
            return super().forward(input_, weight, runtime_gather_output)
        weight = self.weight if weight is None else weight
        assert weight is not None
        if self.skip_bias_add:
            return F.linear(input_, weight), self.bias
        return F.linear(input_, weight, self.bias), None


class NormColumnLinear(ColumnLinear):
    """RMSNorm and then a column-parallel linear, as `TELayerNormColumnParallelLinear`."""

    def __init__(self, input_size: int, output_size: int, *, config: TransformerConfig, **kwargs: Any) -> None:
        super().__init__(input_size, output_size, config=config, **kwargs)
        _check_norm(config)
        self.eps = config.layernorm_epsilon
        self.layer_norm_weight = _norm_weight(config, input_size)

    def forward(
        self, input_: Tensor, weight: Tensor | None = None, runtime_gather_output: bool | None = None
    ) -> tuple[Tensor, Tensor | None]:
        normed = F.rms_norm(input_, (self.input_size,), self.layer_norm_weight, self.eps)
        return super().forward(normed, weight, runtime_gather_output)


class RowLinear(RowParallelLinear):
    """Megatron-core's row-parallel linear. With one tensor-parallel rank it is `F.linear` without the detour."""

    def __init__(self, input_size: int, output_size: int, *, config: TransformerConfig, **kwargs: Any) -> None:
        super().__init__(input_size, output_size, config=config, **kwargs)
        self._whole = get_pg_size(self.tp_group) == 1

    def forward(self, input_: Tensor) -> tuple[Tensor, Tensor | None]:
        if not self._whole:
            return super().forward(input_)
        if self.skip_bias_add:
            return F.linear(input_, self.weight), self.bias
        return F.linear(input_, self.weight, self.bias), None


class CoreAttention(torch.nn.Module):
    """Scaled dot-product attention with grouped queries.

    `attention_mask` is boolean, True where a query must not look, and broadcasts to [B, 1, Sq, Sk]. Where it is given,
    it is the whole mask: causality is not added. Without it, a causal layer lets query i of Sq look at keys up to
    Sk - Sq + i, which is right for a prompt and for decoding against a key/value cache alike.
    """

    def __init__(
        self,
        *,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        softmax_scale: float | None = None,
        **_: Any,
    ) -> None:
        super().__init__()
        assert attention_type == "self", attention_type
        assert attn_mask_type is AttnMaskType.causal, attn_mask_type
        if config.context_parallel_size != 1:
            raise ValueError(
                f"context parallelism of {config.context_parallel_size} needs Transformer Engine: use 1 without it"
            )
        self.scale = softmax_scale

    def forward(
        self,
        query_SBND: Tensor,
        key_SBKD: Tensor,
        value_SBKD: Tensor,
        attention_mask: Tensor | None,
        *,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: PackedSeqParams | None = None,
    ) -> Tensor:
        """Returns [S, B, N * D]."""
        assert attention_bias is None
        assert packed_seq_params is None
        num_queries, batch, heads, head_dim = query_SBND.shape
        num_keys, _, groups, _ = key_SBKD.shape
        mask = None if attention_mask is None else ~attention_mask
        is_causal = mask is None and num_queries > 1
        if is_causal and num_queries != num_keys:
            ones = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query_SBND.device)
            mask, is_causal = ones.tril(num_keys - num_queries), False
        key, value = key_SBKD.permute(1, 2, 0, 3), value_SBKD.permute(1, 2, 0, 3)
        if num_queries == 1 and heads != groups:
            # One new token: the queries of a group become rows of one product, so no key is repeated.
            query = query_SBND.view(batch, groups, heads // groups, head_dim)
            out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=self.scale)
            return out.reshape(1, batch, heads * head_dim)
        out = F.scaled_dot_product_attention(
            query_SBND.permute(1, 2, 0, 3),
            key,
            value,
            attn_mask=mask,
            is_causal=is_causal,
            scale=self.scale,
            enable_gqa=heads != groups,
        )
        return out.permute(2, 0, 1, 3).reshape(num_queries, batch, heads * head_dim)


class TorchSpecProvider(BackendSpecProvider):
    """The modules above, in the place where megatron-core asks for Transformer Engine's."""

    def linear(self) -> type:
        return ColumnLinear

    def column_parallel_linear(self) -> type:
        return ColumnLinear

    def row_parallel_linear(self) -> type:
        return RowLinear

    def fuse_layernorm_and_linear(self) -> bool:
        return True

    def column_parallel_layer_norm_linear(self) -> type:
        return NormColumnLinear

    def layer_norm(self, rms_norm: bool = False, for_qk: bool = False) -> type:
        return RMSNorm

    def core_attention(self) -> type:
        return CoreAttention

    def grouped_mlp_modules(
        self, moe_use_grouped_gemm: bool, moe_use_legacy_grouped_gemm: bool
    ) -> tuple[type, MLPSubmodules | None]:
        raise ValueError("mixture-of-experts layers are not implemented")

    def activation_func(self) -> type:
        raise ValueError("config.use_te_activation_func needs Transformer Engine")


def _check_norm(config: TransformerConfig) -> None:
    assert config.normalization == "RMSNorm", config.normalization
    assert not config.layernorm_zero_centered_gamma


def _norm_weight(config: TransformerConfig, size: int) -> Parameter:
    weight = Parameter(torch.ones(size, dtype=config.params_dtype))
    weight.sequence_parallel = config.sequence_parallel  # pyright: ignore[reportAttributeAccessIssue] megatron's mark
    return weight
