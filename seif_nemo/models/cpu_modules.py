"""Layers in plain PyTorch with Transformer Engine's parameter names, for machines without Transformer Engine.

The same names serve CPU and GPU, so that one weight converter and one checkpoint format do.
Shapes: S sequence, B batch, N query heads, K key/value heads (of this rank), D head size, P packed positions of this
rank, W of all context-parallel ranks.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core import parallel_state
from megatron.core.models.backends import BackendSpecProvider
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.tensor_parallel import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
)
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.mlp import MLPSubmodules
from megatron.core.transformer.moe.experts import SequentialMLP
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.utils import get_pg_size
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn.attention.varlen import varlen_attn
from torch.nn.parameter import Parameter

from seif_nemo.models.fp8_emulation import Fp8Linear


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


class _TakesFp8:
    """What column- and row-parallel layers have in common where FP8 is emulated."""

    fp8: Fp8Linear | None = None  # set by `models/fp8_layers.py`

    def get_extra_state(self) -> Any:
        """Megatron-core's checkpoints keep it under the name that Transformer Engine gives to its own scales."""
        return None if self.fp8 is None else self.fp8.get_state()

    def set_extra_state(self, state: Any) -> None:
        if self.fp8 is not None:
            self.fp8.set_state(state)


class ColumnLinear(_TakesFp8, ColumnParallelLinear):
    """Megatron-core's column-parallel linear. With one tensor-parallel rank it is `F.linear` without the detour."""

    def __init__(self, input_size: int, output_size: int, *, config: TransformerConfig, **kwargs: Any) -> None:
        super().__init__(input_size, output_size, config=config, **kwargs)
        self._whole = get_pg_size(self.tp_group) == 1

    def forward(
        self, input_: Tensor, weight: Tensor | None = None, runtime_gather_output: bool | None = None
    ) -> tuple[Tensor, Tensor | None]:
        if self.fp8 is not None:
            assert weight is None and not runtime_gather_output and not self.gather_output
            return self._in_fp8(input_, self.fp8)
        if not self._whole:
            return super().forward(input_, weight, runtime_gather_output)
        weight = self.weight if weight is None else weight
        assert weight is not None
        if self.skip_bias_add:
            return F.linear(input_, weight), self.bias
        return F.linear(input_, weight, self.bias), None

    def _in_fp8(self, input_: Tensor, fp8: Fp8Linear) -> tuple[Tensor, Tensor | None]:
        """The whole sequence goes through FP8 at once, so that its scale does not depend on sequence parallelism."""
        if self.sequence_parallel and not self.explicit_expert_comm:
            input_ = gather_from_sequence_parallel_region(input_, group=self.tp_group)
        elif not self.explicit_expert_comm:
            input_ = copy_to_tensor_model_parallel_region(input_, group=self.tp_group)
        assert self.weight is not None
        output = fp8(input_, self.weight)
        if self.skip_bias_add or self.bias is None:
            return output, self.bias
        return output + self.bias, None


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


class RowLinear(_TakesFp8, RowParallelLinear):
    """Megatron-core's row-parallel linear. With one tensor-parallel rank it is `F.linear` without the detour."""

    def __init__(self, input_size: int, output_size: int, *, config: TransformerConfig, **kwargs: Any) -> None:
        super().__init__(input_size, output_size, config=config, **kwargs)
        self._whole = get_pg_size(self.tp_group) == 1

    def forward(self, input_: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.fp8 is not None:
            assert self.input_is_parallel
            return self._in_fp8(input_, self.fp8)
        if not self._whole:
            return super().forward(input_)
        if self.skip_bias_add:
            return F.linear(input_, self.weight), self.bias
        return F.linear(input_, self.weight, self.bias), None

    def _in_fp8(self, input_: Tensor, fp8: Fp8Linear) -> tuple[Tensor, Tensor | None]:
        output = fp8(input_, self.weight)
        if self.sequence_parallel and not self.explicit_expert_comm:
            output = reduce_scatter_to_sequence_parallel_region(output, group=self.tp_group)
        elif not self.explicit_expert_comm:
            output = reduce_from_tensor_model_parallel_region(output, group=self.tp_group)
        if self.skip_bias_add or self.bias is None:
            return output, self.bias
        return output + self.bias, None


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
        self.scale = softmax_scale
        group: Any = parallel_state.get_context_parallel_group() if config.context_parallel_size > 1 else None
        self.context_group: ProcessGroup | None = group

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
        """Returns [S, B, N * D]; of packed sequences, whose tensors are [P, heads, D], [P, N, D]."""
        assert attention_bias is None
        if packed_seq_params is not None:
            assert attention_mask is None
            return self._packed(query_SBND, key_SBKD, value_SBKD, packed_seq_params)
        assert self.context_group is None, "context parallelism works on packed sequences"
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

    def _packed(self, query_PND: Tensor, key_PKD: Tensor, value_PKD: Tensor, packed: PackedSeqParams) -> Tensor:
        """Causal attention inside each segment. `cu_seqlens` count the positions of all context-parallel ranks."""
        boundaries: Any = packed.cu_seqlens_q
        enable_gqa = query_PND.shape[1] != key_PKD.shape[1]
        if self.context_group is None and query_PND.is_cuda and query_PND.dtype is not torch.float32:
            longest: Any = packed.max_seqlen_q
            attend: Any = varlen_attn  # with `return_aux` it gives a pair
            return attend(  # never ran on a GPU
                query_PND,
                key_PKD,
                value_PKD,
                boundaries,
                boundaries,
                longest,
                longest,
                scale=self.scale,
                window_size=(-1, 0),
                enable_gqa=enable_gqa,
            )
        segments = list(pairwise(boundaries.tolist()))
        if self.context_group is not None:
            key_PKD, value_PKD = _gather_segments(key_PKD, value_PKD, segments, self.context_group)
        outputs: list[Tensor] = []
        for queries, keys in _visible(segments, self.context_group):
            query_1NSD, key_1KSD, value_1KSD = (
                x.transpose(0, 1)[None] for x in (query_PND[queries], key_PKD[keys], value_PKD[keys])
            )
            mask, hidden = None, key_1KSD.shape[2] - query_1NSD.shape[2]  # keys before the first query
            if hidden:
                ones = torch.ones(query_1NSD.shape[2], key_1KSD.shape[2], dtype=torch.bool, device=query_PND.device)
                mask = ones.tril(hidden)
            out_1NSD = F.scaled_dot_product_attention(
                query_1NSD,
                key_1KSD,
                value_1KSD,
                attn_mask=mask,
                is_causal=not hidden,
                scale=self.scale,
                enable_gqa=enable_gqa,
            )
            outputs.append(out_1NSD[0].transpose(0, 1))
        return torch.cat(outputs)


def _visible(segments: Sequence[tuple[int, int]], group: ProcessGroup | None) -> Iterator[tuple[slice, slice]]:
    """Consecutive runs of this rank's queries, and the keys in their whole order up to the last query of the run.

    With context parallelism rank r has chunks r and 2 * ranks - 1 - r of each segment, as Transformer Engine has it.
    """
    if group is None:
        for start, end in segments:
            yield slice(start, end), slice(start, end)
        return
    ranks, rank = group.size(), group.rank()
    for start, end in segments:
        chunk = (end - start) // (2 * ranks)
        for place, number in enumerate((rank, 2 * ranks - 1 - rank)):
            first = start // ranks + place * chunk
            yield slice(first, first + chunk), slice(start, start + (number + 1) * chunk)


def _gather_segments(
    key_PKD: Tensor, value_PKD: Tensor, segments: Sequence[tuple[int, int]], group: ProcessGroup
) -> tuple[Tensor, Tensor]:
    """Keys and values of all ranks, [W, K, D], in the order of the segments; gradients are summed over the ranks."""
    ranks, own = group.size(), len(key_PKD)
    order: list[Tensor] = []  # where each position stands behind one another's ranks
    for start, end in segments:
        chunk = (end - start) // (2 * ranks)
        for number in range(2 * ranks):
            rank, place = (number, 0) if number < ranks else (2 * ranks - 1 - number, 1)
            first = rank * own + start // ranks + place * chunk
            order.append(torch.arange(first, first + chunk, device=key_PKD.device))
    both_P2KD = torch.stack((key_PKD, value_PKD), dim=1)
    both_W2KD = gather_from_sequence_parallel_region(both_P2KD, group=group).index_select(0, torch.cat(order))
    return both_W2KD[:, 0], both_W2KD[:, 1]


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
        """One expert after the other, whatever is asked for."""
        return SequentialMLP, MLPSubmodules(linear_fc1=ColumnLinear, linear_fc2=RowLinear)

    def activation_func(self) -> type:
        raise ValueError("config.use_te_activation_func needs Transformer Engine")


def _check_norm(config: TransformerConfig) -> None:
    assert config.normalization == "RMSNorm", config.normalization
    assert not config.layernorm_zero_centered_gamma


def _norm_weight(config: TransformerConfig, size: int) -> Parameter:
    weight = Parameter(torch.ones(size, dtype=config.params_dtype))
    weight.sequence_parallel = config.sequence_parallel  # pyright: ignore[reportAttributeAccessIssue] megatron's mark
    return weight
