"""DAPO (Yu et al. 2025, arXiv 2503.14476): what it adds to GRPO.

- Clip-higher: `clip_low` < `clip_high` in ppo.py.
- Token mean: `token` in means.py.
- Dynamic sampling: prompts whose answers all have one reward are drawn anew (evolution/training_phases.py).
- Soft overlong punishment: here.
"""


def overlong_penalty(num_tokens: int, *, max_tokens: int, buffer_tokens: int) -> float:
    """What is added to the reward of a response of this length: 0 down to -1 within the buffer (eq. 13).

    0 up to max_tokens - buffer_tokens, then falling linearly, -1 from max_tokens on.
    """
    assert 0 < buffer_tokens <= max_tokens
    beyond = num_tokens - (max_tokens - buffer_tokens)
    return -min(max(beyond / buffer_tokens, 0.0), 1.0)
