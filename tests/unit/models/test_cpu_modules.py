import math

import pytest
import torch
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from seif_nemo.models.cpu_modules import CoreAttention, RMSNorm


def _config() -> TransformerConfig:
    return TransformerConfig(
        num_layers=1, hidden_size=16, num_attention_heads=4, num_query_groups=2, normalization="RMSNorm"
    )


def _attention() -> CoreAttention:
    return CoreAttention(config=_config(), layer_number=1, attn_mask_type=AttnMaskType.causal, attention_type="self")


def _heads(queries: int, keys: int, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    make = torch.Generator().manual_seed(5)
    query = torch.randn(queries, 3, heads, 4, generator=make)
    return query, torch.randn(keys, 3, 2, 4, generator=make), torch.randn(keys, 3, 2, 4, generator=make)


def _by_hand(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor) -> Tensor:
    """Attention with explicit loops over batch and heads; `hidden` [B, Sq, Sk] is True where one may not look."""
    queries, batch, heads, size = query.shape
    out = torch.empty(queries, batch, heads * size)
    for b in range(batch):
        for h in range(heads):
            group = h // (heads // key.shape[2])
            scores = query[:, b, h] @ key[:, b, group].T / math.sqrt(size)
            weights = scores.masked_fill(hidden[b], -math.inf).softmax(-1)
            out[:, b, h * size : (h + 1) * size] = weights @ value[:, b, group]
    return out


@pytest.mark.parametrize("heads", [2, 4])
@pytest.mark.parametrize("queries, keys", [(5, 5), (1, 6), (2, 6), (1, 1)])
def test_causal_attention_for_prompts_and_for_decoding(heads: int, queries: int, keys: int) -> None:
    query, key, value = _heads(queries, keys, heads)
    late = torch.arange(keys)[None] > torch.arange(queries)[:, None] + keys - queries
    expected = _by_hand(query, key, value, late.expand(3, queries, keys))
    torch.testing.assert_close(_attention()(query, key, value, None), expected)
    # Decoding is announced as "no mask": the one new token sees everything.
    torch.testing.assert_close(_attention()(query, key, value, None, attn_mask_type=AttnMaskType.no_mask), expected)


@pytest.mark.parametrize("heads", [2, 4])
@pytest.mark.parametrize("queries, keys", [(5, 5), (1, 6)])
def test_an_explicit_mask_is_the_whole_mask(heads: int, queries: int, keys: int) -> None:
    query, key, value = _heads(queries, keys, heads)
    hidden = torch.rand(3, queries, keys, generator=torch.Generator().manual_seed(1)) < 0.4
    hidden[..., 0] = False
    out = _attention()(query, key, value, hidden[:, None])
    torch.testing.assert_close(out, _by_hand(query, key, value, hidden))


def test_rms_norm_by_hand() -> None:
    norm = RMSNorm(_config(), 2, eps=0.0)
    norm.weight.data = torch.tensor([2.0, -1.0])
    out = norm(torch.tensor([[3.0, 4.0]]))  # root mean square: sqrt((9 + 16) / 2)
    torch.testing.assert_close(out, torch.tensor([[6.0, -4.0]]) / math.sqrt(12.5))


def test_packed_sequences_see_themselves_alone() -> None:
    query, key, value = (x[:, 0] for x in _heads(9, 9, 4))
    boundaries = torch.tensor([0, 4, 5, 9], dtype=torch.int32)
    packed = PackedSeqParams("thd", boundaries, boundaries, max_seqlen_q=4, max_seqlen_kv=4)
    place, segment = torch.arange(9), torch.tensor([0, 0, 0, 0, 1, 2, 2, 2, 2])
    hidden = (place[None] > place[:, None]) | (segment[None] != segment[:, None])
    expected = _by_hand(query[:, None], key[:, None], value[:, None], hidden[None])
    out = _attention()(query, key, value, None, packed_seq_params=packed)
    torch.testing.assert_close(out.reshape(9, 1, -1), expected)
