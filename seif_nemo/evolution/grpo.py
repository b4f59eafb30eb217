"""One training phase and one step of it: sample → advantage → log-probs → update → save."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from seif_nemo.components.actor import NonFiniteGradientsError
from seif_nemo.config.algorithm import Reference
from seif_nemo.data.files import append_jsonl, write_jsonl
from seif_nemo.evolution.advantages import correction_weights, kl_penalties, shaped_reward, token_advantages
from seif_nemo.evolution.context import Context
from seif_nemo.evolution.mismatch import check_mismatch
from seif_nemo.protocols.engine import StaleWeightsError
from seif_nemo.types.records import Phase, UnitKey
from seif_nemo.types.residents import Resident
from seif_nemo.types.rollouts import LogProbs, Rollout
from seif_nemo.types.training import TrainSample


@dataclass(frozen=True, slots=True, eq=False)
class RewardedRollout:
    """A rollout with its reward (None = missing) and the group whose mean it is compared with."""

    rollout: Rollout
    group: int
    reward: float | None
    note: dict[str, str | None]  # for samples.jsonl


# (step, draw) -> rollouts and metrics. Draws after the first are of other prompts, with groups numbered from 0 again.
StepSampler = Callable[[int, int], tuple[list[RewardedRollout], dict[str, float]]]


def run_training_phase(context: Context, round: int, phase: Phase, total_steps: int, sample: StepSampler) -> None:
    """Run what is left of a training phase. `sample` must depend on its arguments and the weights alone."""
    first = context.ledger.next_step(round, phase)
    context.replan(round, phase, total_steps)
    if first >= total_steps:
        return
    role = context.role(phase)
    training = context.settings.training(phase)
    context.bank.switch(role)
    context.trainable.configure(training.optimizer)
    if first == 0 and training.optimizer.reset_each_phase:
        context.trainable.reset_optimizer()
    for step in range(first, total_steps):
        context.timers.drain()
        with context.timers("total"):
            rewarded, values = sample_step(context, phase, step, sample)
            context.trainable.set_learning_rate(training.optimizer.learning_rate_at(step, total_steps))
            values |= learn(context, round, phase, step, rewarded)
            is_due = (step + 1) % context.settings.checkpoint.every_steps == 0 or step + 1 == total_steps
            is_due = context.stop.is_asked() or is_due  # a stop on request loses nothing
            with context.timers("save"):
                checkpoint = save(context, round, phase, step) if is_due else None
        values |= {f"time_s/{name}": seconds for name, seconds in context.timers.drain().items()}
        log_samples(context, round, phase, step, rewarded)
        context.finish(
            UnitKey(round, phase, step),
            values | throughput(values, rewarded),
            digests={role.value: context.bank.digest(role)},
            checkpoint=checkpoint,
            record=checkpoint is not None,
        )
        if checkpoint is not None:
            context.checkpoints.prune(checkpoint.parent, keep=context.settings.checkpoint.keep)


def sample_step(
    context: Context, phase: Phase, step: int, sample: StepSampler
) -> tuple[list[RewardedRollout], dict[str, float]]:
    """The rollouts of a step; more are drawn while too few prompts have answers of unequal rewards.

    DAPO's dynamic sampling (arXiv 2503.14476, section 3.2), with a bound: `algorithm.dynamic_sampling_draws`. Of a
    later draw only the groups that are missing are kept.
    """
    rewarded, values = sample(step, 0)
    wanted = context.settings.training(phase).prompts_per_step
    missing = wanted - len(groups_with_signal(context, rewarded))
    for draw in range(1, context.settings.algorithm.dynamic_sampling_draws):
        if missing <= 0:
            break
        more, others = sample(step, draw)
        values |= {f"draw_{draw}/{name}": value for name, value in others.items()}
        taken = groups_with_signal(context, more)[:missing]
        values[f"draw_{draw}/groups_left_out"] = float(len({item.group for item in more}) - len(taken))
        first = 1 + max(item.group for item in rewarded)
        numbers = {group: first + place for place, group in enumerate(taken)}
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


def learn(
    context: Context, round: int, phase: Phase, step: int, rewarded: Sequence[RewardedRollout]
) -> dict[str, float]:
    """Advantages, log-probs under the policy and (by weight swap) the reference, one step on the resident role."""
    training = context.settings.training(phase)
    algorithm = context.settings.algorithm
    context.bank.switch(context.role(phase))
    rewards = shaped_rewards(context, rewarded)
    rollouts = [item.rollout for item in rewarded]
    groups = [item.group for item in rewarded]
    lengths = [rollout.num_response_tokens for rollout in rollouts]
    found = token_advantages(algorithm, rewards, groups, lengths)
    values = reward_values(rewarded) | {
        "groups/used": float(found.num_used),
        "groups/zero_variance": float(found.num_zero_variance),
        "groups/missing": float(found.num_missing),
    }
    if algorithm.kl_in_reward:  # then equal rewards, too, give a signal
        used = [index for index, reward in enumerate(rewards) if reward is not None]
    else:
        used = [index for index, advantages in enumerate(found.advantages) if advantages is not None]
    if not used:
        return values
    for rollout in rollouts:
        if rollout.weight_version != context.bank.version:
            raise StaleWeightsError(f"a rollout of {rollout.weight_version} came to {context.bank.version}")
    old, reference, mismatch = score(context, phase, [rollouts[index] for index in used])
    values |= mismatch
    if algorithm.kl_in_reward:
        penalties: list[LogProbs | None] = [None] * len(rollouts)
        for place, index in enumerate(used):
            penalties[index] = kl_penalties(algorithm, training.kl_coefficient, old[place], reference[place])
        found = token_advantages(algorithm, rewards, groups, lengths, penalties=penalties)
    samples = [
        TrainSample(
            rollouts[index].prompt_ids,
            rollouts[index].response_ids,
            old[place],
            reference[place],
            advantages,
            groups[index],
            correction_weights(algorithm, old[place], rollouts[index].logprobs),
        )
        for place, index in enumerate(used)
        if (advantages := found.advantages[index]) is not None
    ]
    values |= correction_values(samples)
    with context.timers("train"), keeping_a_bad_batch(context, round, phase, step):
        stats = context.actor.train_step(
            samples,
            kl_coefficient=0.0 if algorithm.kl_in_reward else training.kl_coefficient,
            # As many groups per update whatever is left of the step: small updates would be noisy ones.
            mini_batches=-(-found.num_used * training.mini_batches // training.prompts_per_step),
            seed=context.seed("round", round, phase.value, step, "shuffle"),
        )
    context.bank.mark_updated()
    return values | {
        "train/loss": stats.loss,
        "train/policy_loss": stats.policy_loss,
        "train/kl": stats.kl,
        "train/entropy": stats.entropy,
        "train/clip_fraction": stats.clip_fraction,
        "train/ratio_max": stats.ratio_max,
        "train/grad_norm": stats.grad_norm,
        "train/update_norm": stats.update_norm,
        "train/lr": stats.learning_rate,
        "train/num_tokens": float(stats.num_tokens),
        "train/num_updates": float(stats.num_updates),
        "train/num_skipped_updates": float(stats.num_skipped_updates),
        "packing/micro_batches": float(stats.num_micro_batches),
        "packing/fill": stats.packing_fill,
        "packing/imbalance": stats.packing_imbalance,
    }


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


def sample_row(sample: TrainSample) -> dict[str, object]:
    """All of a sample, in JSON; what is not finite is NaN or Infinity, as Python's reader takes it."""
    arrays = {
        "prompt_ids": sample.prompt_ids,
        "response_ids": sample.response_ids,
        "old_logprobs": sample.old_logprobs,
        "reference_logprobs": sample.reference_logprobs,
        "advantages": sample.advantages,
        "weights": sample.weights,
    }
    row: dict[str, object] = {name: None if array is None else array.tolist() for name, array in arrays.items()}
    return row | {"group": sample.group}


def correction_values(samples: Sequence[TrainSample]) -> dict[str, float]:
    """What the correction of log-probs did to the tokens of a step; nothing where there is none."""
    weights = [sample.weights for sample in samples if sample.weights is not None]
    if not weights:
        return {}
    joined = np.concatenate(weights)
    return {"correction/masked_share": float(np.mean(joined == 0)), "correction/mean_weight": float(np.mean(joined))}


def shaped_rewards(context: Context, rewarded: Sequence[RewardedRollout]) -> list[float | None]:
    """Rewards with what `algorithm` adds for the length of an answer."""
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
        values = check_mismatch(old, [rollout.logprobs for rollout in rollouts], context.settings.generation)
        with context.bank.resident(reference_of(context.role(phase), training.kl_reference)):
            return old, context.actor.logprobs(pairs), values


def reference_of(role: Resident, choice: Reference) -> Resident:
    """The frozen weights a role's KL term is measured against."""
    if choice is Reference.base:
        return Resident.BASE
    return Resident.REFERENCE if role is Resident.INSTRUCTOR else Resident.EVALUATOR


def save(context: Context, round: int, phase: Phase, step: int) -> Path:
    """Checkpoint the role in training. Collective."""
    path = context.paths.checkpoint(round, phase, step)
    context.checkpoints.save(context.trainable, context.bank, path)
    return path


def reward_values(rewarded: Sequence[RewardedRollout]) -> dict[str, float]:
    known = [item.reward for item in rewarded if item.reward is not None]
    values = {"reward/missing": float(len(rewarded) - len(known))}
    return values | ({"reward/mean": float(np.mean(known))} if known else {})


def throughput(values: dict[str, float], rewarded: Sequence[RewardedRollout]) -> dict[str, float]:
    tokens = sum(item.rollout.num_response_tokens for item in rewarded)
    return {
        "generate/mean_tokens": tokens / len(rewarded),
        "generate/tokens_per_s": tokens / max(values["time_s/generate"], 1e-9),
    }


def log_samples(context: Context, round: int, phase: Phase, step: int, rewarded: Sequence[RewardedRollout]) -> None:
    """A few rollouts of this step, spread over the groups, for people to read."""
    if not context.may_write():
        return
    count = context.settings.evolution.samples_logged_per_step
    stride = max(1, len(rewarded) // max(1, count))
    rows = [{"step": step, "reward": item.reward, **item.note} for item in rewarded[::stride][:count]]
    append_jsonl(context.paths.step_samples(round, phase), rows)
