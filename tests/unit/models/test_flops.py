from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen3Config, Qwen3ForCausalLM

from seif_nemo.models.architecture import Architecture, Experts
from seif_nemo.models.flops import forward_flops, training_flops

ARCH = Architecture(
    family="qwen3",
    num_layers=3,
    hidden_size=32,
    ffn_hidden_size=80,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    vocab_size=101,
    max_positions=64,
    tied_embeddings=True,
    qkv_bias=False,
    qk_norm=True,
    norm_eps=1e-6,
    rope_theta=10000.0,
    rope_scaling=None,
    eos_ids=(0,),
)


def _counted(length: int, *, scored: int, train: bool) -> float:
    """What torch counts in the matrix products of transformers' model, attention over all length² pairs."""
    config = Qwen3Config(
        num_hidden_layers=3,
        hidden_size=32,
        intermediate_size=80,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        vocab_size=101,
    )
    config._attn_implementation = "eager"
    model = Qwen3ForCausalLM(config)
    with FlopCounterMode(display=False) as counter:
        logits = model(torch.zeros(1, length, dtype=torch.int64), logits_to_keep=scored).logits
        if train:
            logits.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("length, scored", [(1, 1), (7, 7), (33, 5)])
def test_forward_is_what_torch_counts_but_for_the_masked_half(length: int, scored: int) -> None:
    masked_half = ARCH.num_layers * 2.0 * 64 * length**2
    assert forward_flops(ARCH, length, num_scored=scored) + masked_half == _counted(length, scored=scored, train=False)


def test_all_tokens_are_scored_where_nothing_is_said() -> None:
    assert forward_flops(ARCH, 9) == forward_flops(ARCH, 9, num_scored=9)
    assert forward_flops(ARCH, 9) - forward_flops(ARCH, 9, num_scored=2) == 2 * 32 * 101 * 7


def test_training_is_three_forwards() -> None:
    masked_half = ARCH.num_layers * 2.0 * 64 * 33**2
    assert training_flops(ARCH, 33) + 3 * masked_half == _counted(33, scored=33, train=True)


def test_a_token_costs_the_experts_that_it_is_sent_to_and_the_router() -> None:
    mixed = replace(ARCH, experts=Experts(count=8, per_token=2, ffn_hidden_size=40, normalised=True))
    # Two experts of 40 are one layer of 80; the router adds 8 columns.
    assert forward_flops(mixed, 9) - forward_flops(ARCH, 9) == 3 * 2 * 32 * 8 * 9
