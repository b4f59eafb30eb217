"""Floating-point operations of a decoder, from its sizes alone: for balancing and for utilisation."""

from seif_nemo.models.architecture import Architecture

_TRAINING_PER_FORWARD = 3.0  # the backward pass multiplies twice for each product of the forward


def forward_flops(architecture: Architecture, length: int, *, num_scored: int | None = None) -> float:
    """Operations of a forward over one sequence of `length` tokens, a multiply-add counted as two.

    2 × weights × tokens of the matrix products, and causal attention at half of length², as in PaLM's appendix B
    (arXiv 2204.02311) and Megatron-LM's `num_floating_point_operations`. The output projection counts for `num_scored`
    tokens only; None: for all. Of experts, those count that a token is sent to, and the router. Norms, rotary
    embedding, activations and softmax are left out.
    """
    query = architecture.num_heads * architecture.head_dim
    key_value = architecture.num_kv_heads * architecture.head_dim
    hidden = architecture.hidden_size
    weights = hidden * (query + 2 * key_value) + query * hidden + hidden * _feed_forward(architecture)
    attention = 2.0 * query * length**2  # scores and weighted values: 2 products × 2 × length² / 2
    scored = length if num_scored is None else num_scored
    layers = architecture.num_layers * (2.0 * weights * length + attention)
    return layers + 2.0 * hidden * architecture.vocab_size * scored


def _feed_forward(architecture: Architecture) -> int:
    """Columns of the matrices that the feed-forward part of a layer multiplies a token with."""
    experts = architecture.experts
    if experts is None:
        return 3 * architecture.ffn_hidden_size
    return 3 * experts.per_token * experts.ffn_hidden_size + experts.count


def training_flops(architecture: Architecture, length: int, *, num_scored: int | None = None) -> float:
    """Operations of a forward and a backward over one sequence, without recomputation."""
    return _TRAINING_PER_FORWARD * forward_flops(architecture, length, num_scored=num_scored)
