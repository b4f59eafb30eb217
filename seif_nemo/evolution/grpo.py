"""One training phase and one step of it: sample → advantage → log-probs → update → save."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial

import numpy as np

from seif_nemo.components.updates import NonFiniteGradientsError
from seif_nemo.config.algorithm import Advantage, Reference
from seif_nemo.data.files import append_jsonl, write_jsonl
from seif_nemo.evolution.advantages import (
    TokenAdvantages,
    correction_weights,
    kl_penalties,
    shaped_reward,
    token_advantages,
)
from seif_nemo.evolution.anatomy import length_values, peak_of, speed_values, work_values
from seif_nemo.evolution.context import Context
from seif_nemo.evolution.kl_control import kl_coefficient
from seif_nemo.evolution.mismatch import check_mismatch, effective_share, staleness_values
from seif_nemo.evolution.ppo import begin_critic_phase, critic_of, learn_values, num_waiting_steps, token_rewards
from seif_nemo.evolution.rewarded import RewardedRollout, Sampled, StepSampler, check_rewards
from seif_nemo.evolution.upcoming import UPCOMING, resume_upcoming, write_upcoming
from seif_nemo.protocols.engine import StaleWeightsError
from seif_nemo.types.records import Phase, UnitKey
from seif_nemo.types.residents import Resident
from seif_nemo.types.rollouts import LogProbs, Rollout
from seif_nemo.types.training import TrainSample, ValueSample


def run_training_phase(context: Context, round: int, phase: Phase, total_steps: int, sample: StepSampler) -> None:
    """Run what is left of a training phase. `sample` must depend on its arguments and the weights alone.

    With `algorithm.max_staleness=1` each step but the first learns from rollouts of the weights before the last update:
    they are made before it, so that what needs no device (rules, a remote judge) can work on them during it.
    """
    first = context.ledger.next_step(round, phase)
    context.replan(round, phase, total_steps)
    if first >= total_steps:
        if first > 0:  # an end between the last line of the ledger and this may have left some
            context.saver.prune(
                context.paths.checkpoint(round, phase, first - 1), with_critic=context.critic is not None
            )
        return
    role = context.role(phase)
    training = context.settings.training(phase)
    context.bank.switch(role)
    context.trainable.configure(training.optimizer)
    if first == 0 and training.optimizer.reset_each_phase:
        context.trainable.reset_optimizer()
    if first == 0:
        begin_critic_phase(context, round, phase, total_steps)
    upcoming = resume_upcoming(context, round, phase, first)
    for step in range(first, total_steps):
        context.timers.reset()
        with context.timers("total"):
            is_fresh = upcoming is None
            rewarded, values = sample_step(context, phase, step, sample)() if upcoming is None else upcoming
            looks_ahead = context.settings.algorithm.max_staleness > 0 and step + 1 < total_steps
            following = sample_step(context, phase, step + 1, sample) if looks_ahead else None
            with keeping_a_bad_batch(context, round, phase, step):
                values |= learn(context, UnitKey(round, phase, step), total_steps, rewarded)
            upcoming = None if following is None else following()
            is_last = context.stop.is_asked() or step + 1 == total_steps  # a stop on request loses nothing
            with context.timers("save"):
                if is_last or (step + 1) % context.settings.checkpoint.every_steps == 0:
                    save(context, UnitKey(round, phase, step), upcoming)
                context.saver.settle(wait=is_last)
        made = [*([values] if is_fresh else []), *([] if upcoming is None else [upcoming[1]])]
        values |= context.measured()
        log_samples(context, round, phase, step, rewarded)
        context.finish_step(
            UnitKey(round, phase, step),
            values
            | length_values(rewarded)
            | speed_values(values, made, num_devices=context.topology.world_size, peak_tflop_per_s=peak_of(context)),
        )


def sample_step(context: Context, phase: Phase, step: int, sample: StepSampler) -> Callable[[], Sampled]:
    """What gives the rollouts of a step. With dynamic sampling they are rewarded already when it returns."""
    first = sample(step, 0)
    if context.settings.algorithm.dynamic_sampling_draws == 1:
        return first
    sampled = draw_more(context, phase, step, sample, first())
    return lambda: sampled


def draw_more(context: Context, phase: Phase, step: int, sample: StepSampler, first: Sampled) -> Sampled:
    """The rollouts of a step; more are drawn while too few prompts have answers of unequal rewards.

    DAPO's dynamic sampling (arXiv 2503.14476, section 3.2), with a bound: `algorithm.dynamic_sampling_draws`. Of a
    later draw only the groups that are missing are kept.
    """
    rewarded, values = first
    wanted = context.settings.training(phase).prompts_per_step
    missing = wanted - len(groups_with_signal(context, rewarded))
    for draw in range(1, context.settings.algorithm.dynamic_sampling_draws):
        if missing <= 0:
            break
        more, others = sample(step, draw)()
        values |= {f"draw_{draw}/{name}": value for name, value in others.items()}
        taken = groups_with_signal(context, more)[:missing]
        values[f"draw_{draw}/groups_left_out"] = float(len({item.group for item in more}) - len(taken))
        next_group = 1 + max(item.group for item in rewarded)
        numbers = {group: next_group + place for place, group in enumerate(taken)}
        rewarded += [replace(item, group=numbers[item.group]) for item in more if item.group in numbers]
        missing -= len(taken)
    return rewarded, values


def groups_with_signal(context: Context, rewarded: Sequence[RewardedRollout]) -> list[int]:
    """Groups that something can be learned from, in their order."""
    lengths = [item.rollout.num_response_tokens for item in rewarded]
    groups = [item.group for item in rewarded]
    found = token_advantages(context.settings.algorithm, shaped_rewards(context, rewarded), groups, lengths)
    used = [group for group, advantages in zip(groups, found.advantages, strict=True) if advantages is not None]
    return list(dict.fromkeys(used))


def learn(context: Context, key: UnitKey, total_steps: int, rewarded: Sequence[RewardedRollout]) -> dict[str, float]:
    """Advantages, log-probs under the policy and (by weight swap) the reference, one step on the resident role.

    With a critic the advantages are against its values, and it makes its own step first.
    """
    algorithm = context.settings.algorithm
    context.bank.switch(context.role(key.phase))
    rewards = shaped_rewards(context, rewarded)
    rollouts = [item.rollout for item in rewarded]
    groups = [item.group for item in rewarded]
    lengths = [rollout.num_response_tokens for rollout in rollouts]
    found = token_advantages(algorithm, rewards, groups, lengths)
    values = reward_values(rewarded) | group_values(found)
    if algorithm.kl_in_reward:  # then equal rewards, too, give a signal
        used = [index for index, reward in enumerate(rewards) if reward is not None]
    else:
        used = [index for index, advantages in enumerate(found.advantages) if advantages is not None]
    if not used:
        return values
    check_versions(context, rollouts)
    old, reference, mismatch = score(context, key.phase, [rollouts[index] for index in used])
    coefficient = kl_coefficient(context, key)
    values |= mismatch | {"train/kl_coefficient": coefficient}
    penalties: list[LogProbs | None] = [None] * len(rollouts)
    if algorithm.kl_in_reward:
        for place, index in enumerate(used):
            penalties[index] = kl_penalties(algorithm, coefficient, old[place], reference[place])
        found = token_advantages(algorithm, rewards, groups, lengths, penalties=penalties)
        values |= group_values(found)
    advantages = [found.advantages[index] for index in used]
    if algorithm.advantage is Advantage.gae:
        token_level = [token_rewards(rewards[index], penalties[index], lengths[index]) for index in used]
        advantages, critic = learn_values(
            context,
            key,
            total_steps,
            [rollouts[index] for index in used],
            [groups[index] for index in used],
            token_level,
        )
        values |= critic
        if key.step < num_waiting_steps(context, key.round):
            return values
    samples = [
        TrainSample(
            rollouts[index].prompt_ids,
            rollouts[index].response_ids,
            old[place],
            reference[place],
            advantages_T,
            groups[index],
            correction_weights(algorithm, old[place], rollouts[index].logprobs),
        )
        for place, index in enumerate(used)
        if (advantages_T := advantages[place]) is not None
    ]
    updated = update_policy(context, key, total_steps, samples, num_groups=found.num_used, coefficient=coefficient)
    return values | updated


def update_policy(
    context: Context,
    key: UnitKey,
    total_steps: int,
    samples: Sequence[TrainSample],
    *,
    num_groups: int,
    coefficient: float,
) -> dict[str, float]:
    """One train step of the resident role."""
    training = context.settings.training(key.phase)
    context.trainable.configure(training.optimizer)
    waited = num_waiting_steps(context, key.round)
    context.trainable.set_learning_rate(training.optimizer.learning_rate_at(key.step - waited, total_steps - waited))
    with context.timers("train"):
        stats = context.actor.train_step(
            samples,
            kl_coefficient=0.0 if context.settings.algorithm.kl_in_reward else coefficient,
            # As many groups per update whatever is left of the step: small updates would be noisy ones.
            mini_batches=-(-num_groups * training.mini_batches // training.prompts_per_step),
            seed=context.seed("round", key.round, key.phase.value, key.step, "shuffle"),
        )
    context.bank.mark_updated()
    return (
        correction_values(samples)
        | work_values(context.architecture, samples)
        | {
            "train/loss": stats.loss,
            "train/policy_loss": stats.policy_loss,
            "train/kl": stats.kl,
            "train/entropy": stats.entropy,
            "train/clip_fraction": stats.clip_fraction,
            "train/ratio_max": stats.ratio_max,
            "train/grad_norm": stats.grad_norm,
            "train/update_norm": stats.update_norm,
            "train/lr": stats.learning_rate,
            "train/num_samples": float(stats.num_samples),
            "train/num_tokens": float(stats.num_tokens),
            "train/num_updates": float(stats.num_updates),
            "train/num_skipped_updates": float(stats.num_skipped_updates),
            "packing/micro_batches": float(stats.num_micro_batches),
            "packing/fill": stats.packing_fill,
            "packing/imbalance": stats.packing_imbalance,
            **({"train/router_aux_loss": stats.router_aux_loss} if stats.router_aux_loss else {}),  # 0: not in use
        }
    )


@contextmanager
def keeping_a_bad_batch(context: Context, round: int, phase: Phase, step: int) -> Iterator[None]:
    """Where gradients stay not finite, write the samples that they came from; the error goes on and names the file."""
    try:
        yield
    except NonFiniteGradientsError as error:
        path = context.paths.bad_batch(round, phase, step)
        if context.may_write():
            write_jsonl(path, [sample_row(sample) for sample in error.samples])
        message = f"{error}; round {round}, {phase.value} step {step}. The last mini-batch is in {path}"
        raise NonFiniteGradientsError(message, error.samples) from None


def sample_row(sample: TrainSample | ValueSample) -> dict[str, object]:
    """All of a sample, in JSON; what is not finite is NaN or Infinity, as Python's reader takes it."""
    found = {each.name: getattr(sample, each.name) for each in fields(sample)}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in found.items()}


def correction_values(samples: Sequence[TrainSample]) -> dict[str, float]:
    """What the correction of log-probs did to the tokens of a step; nothing where there is none."""
    weights = [sample.weights for sample in samples if sample.weights is not None]
    if not weights:
        return {}
    joined = np.concatenate(weights)
    if not len(joined):
        return {}
    return {
        "correction/masked_share": float(np.mean(joined == 0)),
        "correction/mean_weight": float(np.mean(joined)),
        "correction/ess": effective_share(joined),
    }


def shaped_rewards(context: Context, rewarded: Sequence[RewardedRollout]) -> list[float | None]:
    """Rewards with what `algorithm` adds for the length of an answer. Raises BadRewardError."""
    check_rewards(rewarded)
    limit = context.settings.generation.max_new_tokens
    algorithm = context.settings.algorithm
    return [
        shaped_reward(item.reward, item.rollout.num_response_tokens, algorithm, max_tokens=limit) for item in rewarded
    ]


def score(
    context: Context, phase: Phase, rollouts: Sequence[Rollout]
) -> tuple[list[LogProbs], list[LogProbs], dict[str, float]]:
    """Log-probs under the policy as it is and under its reference, and how far the engine's own were from the first."""
    training = context.settings.training(phase)
    pairs = [(rollout.prompt_ids, rollout.response_ids) for rollout in rollouts]
    with context.timers("reference"):
        old = context.actor.logprobs(pairs)
        values = lag_values(context, rollouts, old)
        with context.bank.resident(reference_of(context.role(phase), training.kl_reference)):
            return old, context.actor.logprobs(pairs), values


def lag_values(context: Context, rollouts: Sequence[Rollout], old: Sequence[LogProbs]) -> dict[str, float]:
    """How far the engine's log-probs were from the policy's as it is: the kernels' doing, or also an update's between.

    Only rollouts of these weights say something about the engine.
    """
    fresh = [index for index, rollout in enumerate(rollouts) if rollout.weight_version == context.bank.version]
    stale = sorted({*range(len(rollouts))} - {*fresh})
    values: dict[str, float] = {}
    if fresh:
        generate = [rollouts[index].logprobs for index in fresh]
        values |= check_mismatch([old[index] for index in fresh], generate, context.settings.generation)
    if stale:
        values |= staleness_values([old[index] for index in stale], [rollouts[index].logprobs for index in stale])
    return values


def reference_of(role: Resident, choice: Reference) -> Resident:
    """The frozen weights a role's KL term is measured against."""
    if choice is Reference.base:
        return Resident.BASE
    return Resident.REFERENCE if role is Resident.INSTRUCTOR else Resident.EVALUATOR


def check_versions(context: Context, rollouts: Sequence[Rollout]) -> None:
    """Raises StaleWeightsError for a rollout of other weights than these, or with staleness those one update ago."""
    accepted = [context.bank.version]
    if context.settings.algorithm.max_staleness:
        accepted.append(context.bank.version_before)
    for rollout in rollouts:
        if rollout.weight_version not in accepted:
            raise StaleWeightsError(
                f"a rollout of {rollout.weight_version} came to {context.bank.version} "
                f"(algorithm.max_staleness={context.settings.algorithm.max_staleness})"
            )


def save(context: Context, key: UnitKey, upcoming: Sampled | None) -> None:
    """Begin to checkpoint the role in training and its critic, with what the next step learns from if that is made.

    All of it counts once the ledger names it. Collective.
    """
    role = context.role(key.phase)
    critic = critic_of(context, role)
    beside = None if upcoming is None else (UPCOMING, partial(write_upcoming, sampled=upcoming))
    roles = [role] if critic is None else [role, critic]
    context.saver.begin(key, context.trainable, context.bank, roles, beside=beside)


def group_values(found: TokenAdvantages) -> dict[str, float]:
    return {
        "groups/used": float(found.num_used),
        "groups/zero_variance": float(found.num_zero_variance),
        "groups/missing": float(found.num_missing),
    }


def reward_values(rewarded: Sequence[RewardedRollout]) -> dict[str, float]:
    known = [item.reward for item in rewarded if item.reward is not None]
    values = {"reward/missing": float(len(rewarded) - len(known))}
    return values | ({"reward/mean": float(np.mean(known))} if known else {})


def log_samples(context: Context, round: int, phase: Phase, step: int, rewarded: Sequence[RewardedRollout]) -> None:
    """A few rollouts of this step, spread over the groups, for people to read."""
    if not context.may_write():
        return
    count = context.settings.evolution.samples_logged_per_step
    stride = max(1, len(rewarded) // max(1, count))
    rows = [{"step": step, "reward": item.reward, **item.note} for item in rewarded[::stride][:count]]
    append_jsonl(context.paths.step_samples(round, phase), rows)
