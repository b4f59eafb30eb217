"""The two training phases: what a step of each samples and how it is rewarded. The learning itself is `grpo.py`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seif_nemo.config.algorithm import InstructorRewardConfig
from seif_nemo.data.sampler import PhaseSampler, Pick
from seif_nemo.data.store import read_instructions
from seif_nemo.evolution.anatomy import generation_values
from seif_nemo.evolution.changed_files import ChangedFileError, all_see
from seif_nemo.evolution.codec import CODEC
from seif_nemo.evolution.context import Context
from seif_nemo.evolution.diversity import common_shares
from seif_nemo.evolution.gate import GateDecision, InstructorOutput, count_decisions
from seif_nemo.evolution.grpo import run_training_phase
from seif_nemo.evolution.rewarded import RewardedRollout, Sampled
from seif_nemo.evolution.sifting import sift_later, unfinished_share
from seif_nemo.roles.follower import follower_messages, follower_reward
from seif_nemo.roles.instructor import draw_template, instructor_messages, instructor_reward, with_diversity
from seif_nemo.roles.prompts import InstructorTemplate
from seif_nemo.types.constraints import Instruction
from seif_nemo.types.records import KeptInstruction, Phase, RejectReason, SeedQuestion
from seif_nemo.types.residents import Resident
from seif_nemo.types.rollouts import FinishReason, Rollout


def train_instructor(context: Context, round: int) -> None:
    """Train the Instructor on the seeds; it is paid for what the frozen evaluator fails at."""
    seeds = context.material.seeds
    sampler = phase_sampler(context, round, Phase.INSTRUCTOR, num_items=len(seeds))

    def sample(step: int, draw: int) -> Callable[[], Sampled]:
        chosen = [seeds[pick.index] for pick in draw_picks(context, sampler, step, draw)]
        return instructor_rollouts(context, round, step, chosen, draw=draw)

    run_training_phase(context, round, Phase.INSTRUCTOR, sampler.num_steps, sample)


def train_follower(context: Context, round: int) -> None:
    """Train the Follower on this round's instructions (and a share of earlier rounds'); it is paid for following."""
    current = read_kept(context, round)
    earlier = [row for before in range(1, round) for row in read_kept(context, before)]
    sampler = phase_sampler(
        context,
        round,
        Phase.FOLLOWER,
        num_items=len(current),
        num_replay_items=len(earlier),
        replay_share=context.settings.algorithm.replay_share,
    )

    def sample(step: int, draw: int) -> Callable[[], Sampled]:
        picks = draw_picks(context, sampler, step, draw)
        rows = [earlier[pick.index] if pick.replayed else current[pick.index] for pick in picks]
        instructions = [Instruction(row.seed_question, row.constraints, row.prompt) for row in rows]
        return follower_rollouts(context, round, step, instructions, draw=draw)

    run_training_phase(context, round, Phase.FOLLOWER, sampler.num_steps, sample)


def read_kept(context: Context, round: int) -> list[KeptInstruction]:
    """q.parquet of a round. Raises ChangedFileError on all ranks if one of them does not see the ledger's file."""
    path = context.paths.instructions(round)
    entry = context.ledger.find(round, Phase.SYNTHESIS, context.ledger.next_step(round, Phase.SYNTHESIS) - 1)
    assert entry is not None, f"round {round} has no finished synthesis"
    if not all_see(path, entry.digests[path.name], context.topology):
        raise ChangedFileError(f"{path} is not the file that the synthesis of round {round} wrote: put that one back")
    return list(read_instructions(path, CODEC))


def phase_sampler(
    context: Context,
    round: int,
    phase: Phase,
    *,
    num_items: int,
    num_replay_items: int = 0,
    replay_share: float = 0.0,
) -> PhaseSampler:
    """Which items each step of a training phase uses."""
    training = context.settings.training(phase)
    return PhaseSampler(
        num_items=num_items,
        prompts_per_step=training.prompts_per_step,
        seed=context.seed("round", round, phase.value, "order"),
        epochs=training.epochs_in(round),
        max_steps=training.max_steps,
        num_replay_items=num_replay_items,
        replay_share=replay_share,
    )


def draw_picks(context: Context, sampler: PhaseSampler, step: int, draw: int) -> tuple[Pick, ...]:
    """The prompts of a draw. Draws after the first continue the stream of prompts behind the phase's last step."""
    extra = context.settings.algorithm.dynamic_sampling_draws - 1
    return sampler.picks(step if draw == 0 else sampler.num_steps + step * extra + draw - 1)


def draw_label(draw: int) -> tuple[str | int, ...]:
    """What is added to the label of random numbers, so that no two draws of a step share them."""
    return () if draw == 0 else ("draw", draw)


def instructor_rollouts(
    context: Context, round: int, step: int, seeds: Sequence[SeedQuestion], *, draw: int = 0
) -> Callable[[], Sampled]:
    """`group_size` Instructor outputs per seed, gated, answered by the frozen evaluator, judged, rewarded.

    The judging is waited for, and the rewards made, by the call of what this returns. Both are collective.
    """
    group_size = context.settings.algorithm.instructor.group_size
    label = ("round", round, "instructor", step, *draw_label(draw))
    templates = [
        draw_template(context.material.instructor_templates, seed=context.seed(*label, "template", index))
        for index in range(len(seeds))
    ]
    with context.timers("generate"):
        rollouts, outputs = write_instructions(
            context,
            [seed for seed in seeds for _ in range(group_size)],
            [template for template in templates for _ in range(group_size)],
            label=label,
        )
    with context.timers("answer"):
        sifting = sift_later(context, outputs, answers=context.settings.reward.answers_per_instruction, label=label)

    def reward() -> Sampled:
        with context.timers("answer"):
            sifted = sifting()
            judge_values = context.reward.judge_values(meter_seed=context.seed(*label, "meter"))
        priced = price_instructions(
            sifted.decisions,
            sifted.follow_rates,
            config=context.settings.algorithm.instructor_reward,
            answers=context.settings.reward.answers_per_instruction,
        )
        rewarded = [
            RewardedRollout(
                rollout,
                group=index // group_size,
                reward=priced.rewards[index],
                note={
                    "seed_question": outputs[index].seed_question,
                    "template": outputs[index].template.name,
                    "response": rollout.text,
                    "reason": None if decision.reason is None else str(decision.reason),
                },
            )
            for index, (rollout, decision) in enumerate(zip(rollouts, sifted.decisions, strict=True))
        ]
        values = count_decisions(sifted.decisions) | generation_values(rollouts)
        values["generate/unfinished"] = unfinished_share(rollouts)
        if sifted.answers:
            values["answers/unfinished"] = unfinished_share(sifted.answers)
        return rewarded, values | priced.values | judge_values

    return reward


def write_instructions(
    context: Context,
    seeds: Sequence[SeedQuestion],
    templates: Sequence[InstructorTemplate],
    *,
    label: Sequence[str | int],
) -> tuple[list[Rollout], list[InstructorOutput]]:
    """One Instructor output per (seed, template) pair, by the Instructor as it is now."""
    rollouts = context.speaker.speak(
        Resident.INSTRUCTOR,
        [instructor_messages(template, seed.text) for seed, template in zip(seeds, templates, strict=True)],
        seeds=[context.seed(*label, "sample", index) for index in range(len(seeds))],
        sampling=context.settings.rollout_sampling(),
    )
    outputs = [
        InstructorOutput(seed.text, rollout.text, template, rollout.finish_reason is FinishReason.STOP)
        for seed, template, rollout in zip(seeds, templates, rollouts, strict=True)
    ]
    return rollouts, outputs


@dataclass(frozen=True, slots=True)
class Priced:
    """One reward per output of the Instructor (None: missing), and what they came from, for the metrics."""

    rewards: list[float | None]
    values: dict[str, float]


def price_instructions(
    decisions: Sequence[GateDecision],
    follow_rates: Sequence[Sequence[float | None]],
    *,
    config: InstructorRewardConfig,
    answers: int,
) -> Priced:
    """The Instructor's rewards for a step's outputs, from the first `answers` follow rates of each.

    0 for what the gate refused; missing where a verdict is missing: a judge that fails must not pay. How common a kept
    instruction is counts among all kept ones of the step, whatever their seeds and whether or not they were judged.
    """
    kept = [index for index, decision in enumerate(decisions) if decision.instruction is not None]
    instructions = [decision.instruction for decision in decisions if decision.instruction is not None]
    common = dict(zip(kept, common_shares(instructions), strict=True))
    rewards: list[float | None] = [
        None if decision.reason is RejectReason.FILTER_MISSING else 0.0 for decision in decisions
    ]
    undiscounted: list[float] = []
    discounted: list[float] = []
    for index in kept:
        first = follow_rates[index][:answers]
        known = [rate for rate in first if rate is not None]
        rewards[index] = None
        if len(known) == len(first):
            undiscounted.append(instructor_reward(config.kind, known))
            discounted.append(
                with_diversity(undiscounted[-1], common_share=common[index], coefficient=config.diversity_coefficient)
            )
            rewards[index] = discounted[-1]
    values: dict[str, float] = {}
    if kept:
        values["reward/common_share"] = sum(common.values()) / len(kept)
    if undiscounted:
        values["reward/of_kept"] = sum(undiscounted) / len(undiscounted)
        values["reward/diversity_cost"] = (sum(undiscounted) - sum(discounted)) / len(undiscounted)
    return Priced(rewards, values)


def follower_rollouts(
    context: Context, round: int, step: int, instructions: Sequence[Instruction], *, draw: int = 0
) -> Callable[[], Sampled]:
    """`group_size` answers per instruction by the Follower as it is now, judged and rewarded.

    The judging is waited for, and the rewards made, by the call of what this returns. Both are collective.
    """
    group_size = context.settings.algorithm.follower.group_size
    label = ("round", round, "follower", step, *draw_label(draw))
    repeated = [instruction for instruction in instructions for _ in range(group_size)]
    with context.timers("generate"):
        rollouts = context.speaker.speak(
            Resident.FOLLOWER,
            [follower_messages(context.material.follower_template, instruction) for instruction in repeated],
            seeds=[context.seed(*label, "sample", index) for index in range(len(repeated))],
            sampling=context.settings.rollout_sampling(),
            on_finished=context.reward.head_start(repeated),
        )
    scoring = context.reward.scores_later(
        [(instruction, rollout.text) for instruction, rollout in zip(repeated, rollouts, strict=True)]
    )

    def reward() -> Sampled:
        with context.timers("answer"):
            scores = scoring()
            judge_values = context.reward.judge_values(meter_seed=context.seed(*label, "meter"))
        accepted = [context.settings.reward.accepts_format(rollout.text) for rollout in rollouts]
        rewarded = [
            RewardedRollout(
                rollout,
                group=index // group_size,
                reward=follower_reward(
                    scores[index], finished=rollout.finish_reason is FinishReason.STOP, format_ok=accepted[index]
                ),
                note={"prompt": repeated[index].prompt, "response": rollout.text},
            )
            for index, rollout in enumerate(rollouts)
        ]
        return rewarded, judge_values | {
            **generation_values(rollouts),
            "generate/unfinished": unfinished_share(rollouts),
            "generate/ill_formed": 1 - sum(accepted) / len(accepted),
        }

    return reward
