"""How far the engine's log-probs are from the trainer's, for the same weights and tokens."""

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seif_nemo.algorithms.kl import MAX_LOG_RATIO
from seif_nemo.config.generation import GenerationConfig
from seif_nemo.types.rollouts import LogProbs

_logger = logging.getLogger(__name__)


class MismatchError(RuntimeError):
    """The engine samples from another distribution than the trainer learns on."""


def check_mismatch(
    train: Sequence[LogProbs], generate: Sequence[LogProbs], config: GenerationConfig
) -> dict[str, float]:
    """`mismatch/ratio` = mean exp|Δ| and `mismatch/k3` = mean(exp Δ − 1 − Δ) with Δ = train − generate log-prob.

    Both are 1 and 0 for an exact engine. Nothing of responses without tokens. Raises MismatchError above
    `generation.max_mismatch`.
    """
    delta = np.concatenate(train).astype(np.float64) - np.concatenate(generate).astype(np.float64)
    if not len(delta):
        return {}
    ratio = float(np.exp(np.abs(delta)).mean())
    k3 = float((np.exp(delta) - 1 - delta).mean())
    if not ratio <= config.max_mismatch:
        raise MismatchError(
            f"mean exp|train − generate log-prob| is {ratio:.3f}, above generation.max_mismatch="
            f"{config.max_mismatch}: the engine and the trainer disagree about the same weights"
        )
    if ratio > config.warn_mismatch:
        _logger.warning("train/generate mismatch %.3f is above %.3f", ratio, config.warn_mismatch)
    return {"mismatch/ratio": ratio, "mismatch/k3": k3}


def staleness_values(train: Sequence[LogProbs], generate: Sequence[LogProbs]) -> dict[str, float]:
    """What an update between sampling and learning did: `staleness/mean_abs_delta` = mean |Δ| per token, and
    `staleness/ess` = the share of tokens that the uncut importance weights exp Δ leave in effect.
    """
    delta = np.concatenate(train).astype(np.float64) - np.concatenate(generate).astype(np.float64)
    if not len(delta):
        return {}
    weights = np.exp(np.clip(delta, -MAX_LOG_RATIO, MAX_LOG_RATIO))
    return {"staleness/mean_abs_delta": float(np.abs(delta).mean()), "staleness/ess": effective_share(weights)}


def effective_share(weights: NDArray[np.floating]) -> float:
    """Kish's effective sample size over the number of samples: (Σw)² / (n Σw²); 1 for equal weights, 0 for none."""
    whole = weights.astype(np.float64)
    squares = float((whole**2).sum())
    return float(whole.sum()) ** 2 / (len(whole) * squares) if squares else 0.0
