"""How the tokens of a mini-batch weigh against one another.

- token: every token the same (DAPO; verl's token-mean).
- sequence: every response the same, its tokens share its weight (GRPO's and GSPO's objectives).
- constant: a sum over tokens, divided by the most tokens that the responses could have had (Dr. GRPO).
"""

from collections.abc import Sequence

from seif_nemo.config.algorithm import LossMean


def token_weight(mean: LossMean, length: int) -> float:
    """The weight of each token of a response of this length."""
    return 1.0 / length if mean is LossMean.sequence and length else 1.0


def denominator(mean: LossMean, lengths: Sequence[int], *, max_tokens: int) -> float:
    """What the weighted sum over all tokens of a mini-batch is divided by; 0 if there is no token."""
    if mean is LossMean.token:
        return float(sum(lengths))
    num_used = sum(length > 0 for length in lengths)
    return float(num_used if mean is LossMean.sequence else num_used * max_tokens)
