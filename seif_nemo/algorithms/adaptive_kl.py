"""A KL coefficient that steers the KL to a target: the proportional controller of Ziegler et al. (arXiv 1909.08593,
section 2.2).

Their gain of 0.1 per update is here (responses of the step) / horizon, as in their code (openai/lm-human-preferences).
"""

MAX_ERROR = 0.2


def adapted_coefficient(coefficient: float, kl: float, *, target: float, horizon: float, num_responses: int) -> float:
    """The coefficient after a step of `num_responses` responses whose KL was `kl`, in the unit of `target`.

    coefficient (1 + e num_responses / horizon) with e = kl / target - 1, clipped to [-0.2, 0.2].
    """
    error = min(max(kl / target - 1, -MAX_ERROR), MAX_ERROR)
    return coefficient * (1 + error * num_responses / horizon)
