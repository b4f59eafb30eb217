import math

import pytest
import torch
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from seif_nemo.models.cpu_modules import CoreAttention, RMSNorm, TorchSpecProvider


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


def test_context_parallelism_and_experts_are_refused() -> None:
    config = _config()
    config.context_parallel_size = 2
    with pytest.raises(ValueError, match="context parallelism of 2 needs Transformer Engine"):
        CoreAttention(config=config, layer_number=1, attn_mask_type=AttnMaskType.causal, attention_type="self")
    with pytest.raises(ValueError, match="mixture-of-experts"):
        TorchSpecProvider().grouped_mlp_modules(False, False)
