"""What PPO adds to a step of a training phase: values → advantages by GAE → the critic's own update.

A role's critic is a resident like any other. It takes turns with the role in the one model, has its own moments and
learning rate, and is saved with the role: a line of the ledger names both.
"""

import logging
from collections.abc import Sequence

import numpy as np

from seif_nemo.algorithms.gae import generalised_advantages
from seif_nemo.algorithms.reinforce_pp import normalise_over_batch
from seif_nemo.evolution.context import Context
from seif_nemo.types.records import Phase, UnitKey
from seif_nemo.types.residents import Resident
from seif_nemo.types.rollouts import LogProbs, Rollout
from seif_nemo.types.training import CriticStats, ValueSample

_logger = logging.getLogger(__name__)

_CRITICS = {Resident.INSTRUCTOR: Resident.INSTRUCTOR_CRITIC, Resident.FOLLOWER: Resident.FOLLOWER_CRITIC}


def critic_of(context: Context, role: Resident) -> Resident | None:
    """The resident that values what `role` writes; None without a critic."""
    return None if context.critic is None else _CRITICS[role]


def begin_critic_phase(context: Context, round: int, phase: Phase, total_steps: int) -> None:
    """Reset the optimizer of the phase's critic, if each phase is to start with a fresh one."""
    critic = critic_of(context, context.role(phase))
    if critic is None:
        return
    if num_waiting_steps(context, round) >= total_steps:
        _logger.warning(
            "round %d: the policy does not learn in the %s's phase: all its %d steps are the critic's "
            "(algorithm.critic.warmup_steps=%d)",
            *(round, phase.value, total_steps, context.settings.algorithm.critic.warmup_steps),
        )
    if context.settings.algorithm.critic.optimizer.reset_each_phase:
        with context.bank.resident(critic):
            context.trainable.reset_optimizer()


def num_waiting_steps(context: Context, round: int) -> int:
    """Steps at the start of a phase in which only the critic learns: `algorithm.critic.warmup_steps`, in round 1."""
    return context.settings.algorithm.critic.warmup_steps if round == 1 else 0


def learn_values(
    context: Context,
    key: UnitKey,
    total_steps: int,
    rollouts: Sequence[Rollout],
    groups: Sequence[int],
    rewards: Sequence[LogProbs],
) -> tuple[list[LogProbs], dict[str, float]]:
    """The rollouts' advantages, normalised over the batch, and metrics. The critic has learned after it.

    `rewards` are per token. Values, and so advantages, are those of the critic before its update. It is resident in
    here only.
    """
    critic = critic_of(context, context.role(key.phase))
    assert critic is not None and context.critic is not None
    config = context.settings.algorithm.critic
    num_groups = len(set(groups))
    with context.timers("critic"), context.bank.resident(critic):
        values = context.critic.values([(rollout.prompt_ids, rollout.response_ids) for rollout in rollouts])
        found = [
            generalised_advantages(rewards_T, values_T, gamma=config.gamma, gae_lambda=config.gae_lambda)
            for rewards_T, values_T in zip(rewards, values, strict=True)
        ]
        lessons = [
            ValueSample(rollout.prompt_ids, rollout.response_ids, values_T, returns_T, group)
            for rollout, group, values_T, (_, returns_T) in zip(rollouts, groups, values, found, strict=True)
        ]
        context.trainable.configure(config.optimizer)
        context.trainable.set_learning_rate(config.optimizer.learning_rate_at(key.step, total_steps))
        stats = context.critic.train_step(
            lessons,
            mini_batches=-(-num_groups * config.mini_batches // context.settings.training(key.phase).prompts_per_step),
            epochs=config.epochs,
            seed=context.seed("round", key.round, key.phase.value, key.step, "critic"),
        )
        context.bank.mark_updated()
    return normalise_over_batch([advantages_T for advantages_T, _ in found]), critic_values(stats)


def token_rewards(reward: float | None, penalties_T: LogProbs | None, num_tokens: int) -> LogProbs:
    """The reward of each token: that of the response on its last one, less each token's penalty if there are any."""
    assert reward is not None
    rewards_T = np.zeros(num_tokens) if penalties_T is None else -penalties_T.astype(np.float64)
    rewards_T[-1:] += reward
    return rewards_T.astype(np.float32)


def critic_values(stats: CriticStats) -> dict[str, float]:
    return {
        "critic/loss": stats.loss,
        "critic/clip_fraction": stats.clip_fraction,
        "critic/explained_variance": stats.explained_variance,
        "critic/value_mean": stats.value_mean,
        "critic/return_mean": stats.return_mean,
        "critic/grad_norm": stats.grad_norm,
        "critic/update_norm": stats.update_norm,
        "critic/lr": stats.learning_rate,
        "critic/num_updates": float(stats.num_updates),
        "critic/num_skipped_updates": float(stats.num_skipped_updates),
        **({"critic/router_aux_loss": stats.router_aux_loss} if stats.router_aux_loss else {}),  # 0: not in use
    }
