"""From the rewards of a step to an advantage for each token, as `algorithm.advantage` says.

Shape suffixes: T tokens of one response, N responses of one group.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seif_nemo.algorithms.dapo import overlong_penalty
from seif_nemo.algorithms.dr_grpo import dr_grpo_advantages
from seif_nemo.algorithms.groups import GroupAdvantages, group_advantages
from seif_nemo.algorithms.grpo import grpo_advantages
from seif_nemo.algorithms.importance import importance_weights
from seif_nemo.algorithms.kl import KL_ESTIMATORS
from seif_nemo.algorithms.reinforce_pp import centre, normalise_over_batch, returns_to_go
from seif_nemo.algorithms.rloo import rloo_advantages
from seif_nemo.config.algorithm import Advantage, AlgorithmConfig, Correction
from seif_nemo.types.rollouts import LogProbs

_FORMULAS: dict[Advantage, Callable[[Tensor], Tensor]] = {
    Advantage.grpo: grpo_advantages,
    Advantage.dr_grpo: dr_grpo_advantages,
    Advantage.rloo: rloo_advantages,
    Advantage.reinforce_pp_baseline: centre,
}


@dataclass(frozen=True, slots=True, eq=False)
class TokenAdvantages:
    """Per response, in the order of the rewards: its tokens' advantages, or None where nothing is learned from it."""

    advantages: list[LogProbs | None]
    num_used: int  # groups
    num_zero_variance: int
    num_missing: int


def shaped_reward(
    reward: float | None, num_tokens: int, algorithm: AlgorithmConfig, *, max_tokens: int
) -> float | None:
    """The reward with DAPO's penalty for answers that come near the limit."""
    if reward is None or not algorithm.overlong_buffer_tokens:
        return reward
    buffer_tokens = algorithm.overlong_buffer_tokens
    return reward + overlong_penalty(num_tokens, max_tokens=max_tokens, buffer_tokens=buffer_tokens)


def token_advantages(
    algorithm: AlgorithmConfig,
    rewards: Sequence[float | None],
    groups: Sequence[int],
    lengths: Sequence[int],
    *,
    penalties: Sequence[LogProbs | None] | None = None,
) -> TokenAdvantages:
    """Advantages of all tokens. `lengths` are the responses' numbers of tokens.

    `penalties` (KL terms times their coefficient, per token; None of a response without a reward) are taken off the
    rewards: for REINFORCE++ token by token, for advantages per response as a sum. With a critic this only says which
    responses are learned from: the advantages are those of a critic that expects nothing (ppo.py has the others).
    """
    batch_wide = algorithm.advantage in (Advantage.reinforce_pp, Advantage.reinforce_pp_baseline, Advantage.gae)
    if penalties is not None and not batch_wide:
        rewards = [
            None if reward is None or penalty is None else reward - float(penalty.sum(dtype=np.float64))
            for reward, penalty in zip(rewards, penalties, strict=True)
        ]
    scores = _scores(algorithm.advantage, rewards, groups)
    advantages: list[LogProbs | None] = [
        None if score is None else np.full(length, score, dtype=np.float32)
        for score, length in zip(scores.advantages, lengths, strict=True)
    ]
    if batch_wide:
        used = [index for index, score in enumerate(scores.advantages) if score is not None]
        returns = [
            returns_to_go(score, penalty)
            for index in used
            if (score := scores.advantages[index]) is not None
            and (penalty := _penalty(penalties, index, lengths[index])) is not None
        ]
        for index, values in zip(used, normalise_over_batch(returns), strict=True):
            advantages[index] = values
    return TokenAdvantages(advantages, scores.num_used, scores.num_zero_variance, scores.num_missing)


def _penalty(penalties: Sequence[LogProbs | None] | None, index: int, length: int) -> LogProbs:
    penalty = None if penalties is None else penalties[index]
    return np.zeros(length, dtype=np.float32) if penalty is None else penalty


def _scores(kind: Advantage, rewards: Sequence[float | None], groups: Sequence[int]) -> GroupAdvantages:
    if kind not in (Advantage.reinforce_pp, Advantage.gae):
        return group_advantages(rewards, groups, _FORMULAS[kind])
    known = {group for reward, group in zip(rewards, groups, strict=True) if reward is not None}
    # Every response with a reward is learned from: what it is compared with is the whole batch.
    return GroupAdvantages(
        advantages=tuple(rewards),
        num_used=len(known),
        num_zero_variance=0,
        num_missing=len(set(groups)) - len(known),
        num_missing_rewards=sum(reward is None for reward in rewards),
    )


def kl_penalties(
    algorithm: AlgorithmConfig, coefficient: float, logprobs_T: LogProbs, reference_T: LogProbs
) -> LogProbs:
    """coefficient x KL estimate of each token: what is taken off the reward where the KL term is not in the loss."""
    estimate = KL_ESTIMATORS[algorithm.kl_estimator]
    estimates_T = estimate(torch.from_numpy(logprobs_T), torch.from_numpy(reference_T)) * coefficient
    return estimates_T.numpy().astype(np.float32)


def correction_weights(algorithm: AlgorithmConfig, old_T: LogProbs, rollout_T: LogProbs) -> LogProbs | None:
    """Weights that correct for the engine's log-probs being not quite those of the training forward; None: none."""
    kind = algorithm.correction
    if kind is Correction.none:
        return None
    return importance_weights(
        old_T,
        rollout_T,
        bound=algorithm.correction_bound,
        per_sequence=kind in (Correction.sequence_cut, Correction.sequence_mask),
        mask=kind in (Correction.token_mask, Correction.sequence_mask),
    )
