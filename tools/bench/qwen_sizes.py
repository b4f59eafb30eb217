"""Sizes of Qwen2.5 models, for benches that need no weights of theirs."""

from seif_nemo.models.architecture import Architecture

SIZES = {  # layers, hidden, feed-forward, heads, key/value heads, vocabulary, tied: Qwen2.5's own
    "tiny": (2, 128, 384, 4, 2, 2048, True),
    "100m": (12, 768, 2048, 12, 2, 16384, True),  # none of theirs: large enough to measure disks with
    "1.5b": (28, 1536, 8960, 12, 2, 151936, True),
    "7b": (28, 3584, 18944, 28, 4, 152064, False),
}


def architecture(size: str) -> Architecture:
    layers, hidden, ffn, heads, groups, vocab, tied = SIZES[size]
    return Architecture(
        family="qwen2",
        num_layers=layers,
        hidden_size=hidden,
        ffn_hidden_size=ffn,
        num_heads=heads,
        num_kv_heads=groups,
        head_dim=hidden // heads,
        vocab_size=vocab,
        max_positions=32768,
        tied_embeddings=tied,
        qkv_bias=True,
        qk_norm=False,
        norm_eps=1e-6,
        rope_theta=1e6,
        rope_scaling=None,
        eos_ids=(1,),
    )
