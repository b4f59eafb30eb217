"""One chunk of a GPTModel (a pipeline stage, or one of several on it), run on cached keys and values.

Megatron's attention knows one position for the whole batch (static context) or needs flash-attention's paged kernels
(dynamic context). Here every row is at a position of its own, on any device. So this walks over the model's own modules
(embedding, norms, parallel linear layers, MLP, head) and replaces only what lies between `linear_qkv` and
`linear_proj`: rotary embedding, cache and attention.

Tokens are a flat sequence, [N, 1, hidden] in Megatron's layout: no padding enters the linear layers, and sequence
parallelism shards N as it does in training.

Shape suffixes: N tokens of this forward, B rows, C columns (positions), H query heads, G key/value heads (both of this
tensor rank), D head size, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.fp8_utils import get_fp8_context
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.identity_op import IdentityOp
from torch import Tensor

from seif_nemo.generation.megatron.kv_cache import KVCache
from seif_nemo.models.fp8_layers import assert_pass_in_fp8
from seif_nemo.models.precision import row_multiple


@dataclass(frozen=True, slots=True, eq=False)
class Prompts:
    """How the tokens of a prefill are divided."""

    count: int
    padded_index_N: Tensor  # place of each token in [count, num_columns]
    last_B: Tensor  # which tokens are the last of their prompt


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What a forward works on.

    Decoding: one token for each of the rows 0..B-1. Prefill (`prompts` given): whole prompts, one after the other.
    """

    token_N: Tensor
    position_N: Tensor
    flat_index_N: Tensor  # where in the cache the token's key and value go
    num_columns: int  # columns that hold a token of any row, this forward's included
    prompts: Prompts | None = None  # prefill only


class ChunkForward:
    """Runs the layers of one chunk, whose keys and values are those from layer `first_layer` of the cache on.

    Raises `ValueError` for a model it would not compute exactly.
    """

    def __init__(
        self,
        model: GPTModel,
        *,
        first_layer: int,
        max_sequence_length: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        check_supported(model)
        self._model = model
        self._first_layer = first_layer
        self._layers: list[Any] = list(model.decoder.layers)  # megatron's, which pyright cannot see through
        self._tensor_group = model.pg_collection.tp
        self._row_multiple = row_multiple(model.config)
        shards = self._tensor_group.size() if model.config.sequence_parallel else 1
        self._pad_to = shards * self._row_multiple
        self._is_checked = False  # that FP8 is on, if it is to be
        with torch.no_grad():
            rotary: Any = model.rotary_pos_emb
            angles_CD = rotary.get_emb(max_sequence_length)[:, 0, 0].to(device)
            self._cos_CD = angles_CD.cos().to(dtype)
            sin_CD = angles_CD.sin().to(dtype)
            # rotate_half(x) * sin = cat(x2, x1) * cat(-sin, sin): one negation here instead of one per layer.
            half = sin_CD.shape[-1] // 2
            self._sin_CD = torch.cat((-sin_CD[:, :half], sin_CD[:, half:]), dim=-1)
        self._rotated = self._cos_CD.shape[-1]

    def run(self, cache: KVCache, step: Step, hidden_N1: Tensor | None) -> Tensor:
        """Hidden states for the next chunk, [N, 1, hidden] (or this rank's sequence shard), or logits [B, V] (float32).

        hidden_N1 is what the chunk before gave; None for the first one.
        """
        model = self._model
        num_tokens = len(step.token_N)
        if model.pre_process:
            token_1N = F.pad(step.token_N, (0, -num_tokens % self._pad_to))[None]
            hidden_N1 = model.embedding(input_ids=token_1N, position_ids=None)
        assert hidden_N1 is not None
        cos_N1D = self._cos_CD.index_select(0, step.position_N)[:, None]
        sin_N1D = self._sin_CD.index_select(0, step.position_N)[:, None]
        for index, layer in enumerate(self._layers, start=self._first_layer):
            with get_fp8_context(model.config, layer.layer_number - 1):  # FP8 in it never ran
                hidden_N1 = self._layer(index, layer, hidden_N1, cache, step, cos_N1D, sin_N1D)
        if not self._is_checked:
            assert_pass_in_fp8(model)
            self._is_checked = True
        if model.decoder.final_layernorm is not None:
            hidden_N1 = model.decoder.final_layernorm(hidden_N1)
        assert hidden_N1 is not None
        return self._logits(hidden_N1, step) if model.post_process else hidden_N1

    def shape_between_chunks(self, num_tokens: int) -> tuple[int, int, int]:
        """Shape of the hidden states that one chunk gives to the next."""
        return (-(-num_tokens // self._pad_to) * self._row_multiple, 1, self._model.config.hidden_size)

    def _logits(self, hidden_N1: Tensor, step: Step) -> Tensor:
        head = self._model.output_layer
        sharded = head.sequence_parallel
        if sharded:
            hidden_N1 = gather_from_sequence_parallel_region(hidden_N1, group=self._tensor_group)
        hidden_N1 = hidden_N1[: len(step.token_N)] if step.prompts is None else hidden_N1[step.prompts.last_B]
        tied = self._model.share_embeddings_and_output_weights
        weight = self._model.shared_embedding_or_output_weight() if tied else None
        head.sequence_parallel = False  # the head would gather again
        try:
            logits_B1V, _ = head(hidden_N1, weight=weight, runtime_gather_output=True)
        finally:
            head.sequence_parallel = sharded
        return logits_B1V[:, 0].float()

    def _layer(
        self,
        index: int,
        layer: Any,
        hidden_N1: Tensor,
        cache: KVCache,
        step: Step,
        cos_N1D: Tensor,
        sin_N1D: Tensor,
    ) -> Tensor:
        attention = layer.self_attention
        query_NHD, key_NGD, value_NGD = (
            x[: len(step.token_N), 0]
            for x in attention.get_query_key_value_tensors(layer.input_layernorm(hidden_N1), None)
        )
        heads_NHD = self._rotate(torch.cat((query_NHD, key_NGD), dim=1), cos_N1D, sin_N1D)
        query_NHD, key_NGD = heads_NHD.split((query_NHD.shape[1], key_NGD.shape[1]), dim=1)
        cache.write(index, step.flat_index_N, key_NGD, value_NGD)
        scale = attention.config.softmax_scale
        if step.prompts is None:
            context_N = _decode_attention(cache, index, step, query_NHD, scale)
        else:
            context_N = _prefill_attention(step.prompts, step.num_columns, query_NHD, key_NGD, value_NGD, scale)
        if self._pad_to > 1:
            context_N = F.pad(context_N, (0, 0, 0, -len(context_N) % self._pad_to))
        hidden_N1 = _add(attention.linear_proj(context_N[:, None]), hidden_N1)
        return _add(layer.mlp(layer.pre_mlp_layernorm(hidden_N1)), hidden_N1)

    def _rotate(self, x_NHD: Tensor, cos_N1D: Tensor, sin_N1D: Tensor) -> Tensor:
        """Rotary embedding of the first `_rotated` dimensions, by halves (not interleaved)."""
        rest = None
        if self._rotated < x_NHD.shape[-1]:
            x_NHD, rest = x_NHD[..., : self._rotated], x_NHD[..., self._rotated :]
        low, high = x_NHD.chunk(2, dim=-1)
        out_NHD = torch.addcmul(x_NHD * cos_N1D, torch.cat((high, low), dim=-1), sin_N1D)
        return out_NHD if rest is None else torch.cat((out_NHD, rest), dim=-1)


def _add(output_and_bias: tuple[Tensor, Tensor | None], residual_N1: Tensor) -> Tensor:
    output_N1, bias = output_and_bias
    if bias is not None:
        output_N1 = output_N1 + bias
    return residual_N1 + output_N1


def _decode_attention(cache: KVCache, layer: int, step: Step, query_BHD: Tensor, scale: float | None) -> Tensor:
    """One query per row over the row's columns. [B, H·D]. Heads that share keys take the place of query positions."""
    num_rows = len(query_BHD)
    key_BGCD, value_BGCD = cache.read(layer, num_rows, step.num_columns)
    groups = key_BGCD.shape[1]
    query_BGQD = query_BHD.reshape(num_rows, groups, -1, query_BHD.shape[-1])
    mask = cache.mask_RC[:num_rows, None, None, : step.num_columns].expand(-1, 1, query_BGQD.shape[2], -1)
    out_BGQD = F.scaled_dot_product_attention(query_BGQD, key_BGCD, value_BGCD, attn_mask=mask, scale=scale)
    return out_BGQD.reshape(num_rows, -1)


def _prefill_attention(
    prompts: Prompts, num_columns: int, query_NHD: Tensor, key_NGD: Tensor, value_NGD: Tensor, scale: float | None
) -> Tensor:
    """Causal attention inside each prompt. Prompts are padded on the right, which a causal mask never looks at."""

    def padded(x_NHD: Tensor) -> Tensor:
        full = x_NHD.new_zeros(prompts.count * num_columns, *x_NHD.shape[1:])
        full.index_copy_(0, prompts.padded_index_N, x_NHD)
        return full.view(prompts.count, num_columns, *x_NHD.shape[1:]).transpose(1, 2)

    out_BHCD = F.scaled_dot_product_attention(
        padded(query_NHD),
        padded(key_NGD),
        padded(value_NGD),
        is_causal=True,
        scale=scale,
        enable_gqa=query_NHD.shape[1] != key_NGD.shape[1],
    )
    out_BCHD = out_BHCD.transpose(1, 2)
    return out_BCHD.reshape(-1, out_BCHD.shape[2] * out_BCHD.shape[3])[prompts.padded_index_N]


def check_supported(model: GPTModel) -> None:
    """Raises `ValueError` for a model whose forward is more than `ChunkForward` computes."""
    config = model.config
    unsupported = [
        name
        for name, present in (
            (f"position_embedding_type={model.position_embedding_type!r}", model.position_embedding_type != "rope"),
            ("multi_latent_attention", config.multi_latent_attention),
            ("attention_output_gate", getattr(config, "attention_output_gate", False)),
            ("no_rope_freq", bool(getattr(config, "no_rope_freq", None))),
            ("window_size", getattr(config, "window_size", None) is not None),
            ("softmax_type", getattr(config, "softmax_type", "vanilla") != "vanilla"),
            ("rotary_interleaved", config.rotary_interleaved),
            ("mtp_num_layers", config.mtp_num_layers is not None),
            ("apply_query_key_layer_scaling", config.apply_query_key_layer_scaling),
            ("fp32_residual_connection", config.fp32_residual_connection),
        )
        if present
    ]
    for layer in model.decoder.layers:
        if type(layer.self_attention) is not SelfAttention:
            unsupported.append(f"attention of class {type(layer.self_attention).__name__}")
        if not isinstance(layer.cross_attention, IdentityOp):
            unsupported.append("cross attention")
    if unsupported:
        raise ValueError(f"the in-place engine cannot run this model: {', '.join(dict.fromkeys(unsupported))}")
