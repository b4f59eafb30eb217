"""One training phase and one step of it: sample → advantage → log-probs → update → save."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seif_nemo.algorithms.advantages import group_advantages
from seif_nemo.config.algorithm import Reference
from seif_nemo.data.files import append_jsonl
from seif_nemo.evolution.context import Context
from seif_nemo.evolution.mismatch import check_mismatch
from seif_nemo.protocols.engine import StaleWeightsError
from seif_nemo.types.records import Phase, UnitKey
from seif_nemo.types.residents import Resident
from seif_nemo.types.rollouts import Rollout
from seif_nemo.types.training import TrainSample


@dataclass(frozen=True, slots=True, eq=False)
class RewardedRollout:
    """A rollout with its reward (None = missing) and the group whose mean it is compared with."""

    rollout: Rollout
    group: int
    reward: float | None
    note: dict[str, str | None]  # for samples.jsonl


StepSampler = Callable[[int], tuple[list[RewardedRollout], dict[str, float]]]


def run_training_phase(context: Context, round: int, phase: Phase, total_steps: int, sample: StepSampler) -> None:
    """Run what is left of a training phase. `sample(step)` must depend on the step and the weights alone."""
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
            rewarded, values = sample(step)
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


def learn(
    context: Context, round: int, phase: Phase, step: int, rewarded: Sequence[RewardedRollout]
) -> dict[str, float]:
    """Advantages within each group, reference log-probs by weight swap, one GRPO step on the resident role."""
    training = context.settings.training(phase)
    role = context.role(phase)
    context.bank.switch(role)
    groups = group_advantages([item.reward for item in rewarded], [item.group for item in rewarded])
    used = [
        (item.rollout, item.group, advantage)
        for item, advantage in zip(rewarded, groups.advantages, strict=True)
        if advantage is not None
    ]
    values = reward_values(rewarded) | {
        "groups/used": float(groups.num_used),
        "groups/zero_variance": float(groups.num_zero_variance),
        "groups/missing": float(groups.num_missing),
    }
    if not used:
        return values
    for item in rewarded:
        if item.rollout.weight_version != context.bank.version:
            raise StaleWeightsError(f"a rollout of {item.rollout.weight_version} came to {context.bank.version}")
    pairs = [(rollout.prompt_ids, rollout.response_ids) for rollout, *_ in used]
    with context.timers("reference"):
        old = context.actor.logprobs(pairs)
        values |= check_mismatch(old, [rollout.logprobs for rollout, *_ in used], context.settings.generation)
        with context.bank.resident(reference_of(role, training.kl_reference)):
            reference = context.actor.logprobs(pairs)
    samples = [
        TrainSample(rollout.prompt_ids, rollout.response_ids, old[index], reference[index], advantage, group)
        for index, (rollout, group, advantage) in enumerate(used)
    ]
    with context.timers("train"):
        stats = context.actor.train_step(
            samples,
            kl_coefficient=training.kl_coefficient,
            # As many groups per update whatever is left of the step: small updates would be noisy ones.
            mini_batches=-(-groups.num_used * training.mini_batches // training.prompts_per_step),
            seed=context.seed("round", round, phase.value, step, "shuffle"),
        )
    context.bank.mark_updated()
    return values | {
        "train/loss": stats.loss,
        "train/policy_loss": stats.policy_loss,
        "train/kl": stats.kl,
        "train/clip_fraction": stats.clip_fraction,
        "train/ratio_max": stats.ratio_max,
        "train/grad_norm": stats.grad_norm,
        "train/lr": stats.learning_rate,
        "train/num_tokens": float(stats.num_tokens),
        "train/num_updates": float(stats.num_updates),
        "train/num_skipped_updates": float(stats.num_skipped_updates),
    }


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
