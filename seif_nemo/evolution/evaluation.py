"""Measuring: the Follower on the held-out prompts, the Instructor on the probe seeds."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from seif_nemo.data.files import write_jsonl
from seif_nemo.evolution.context import Context
from seif_nemo.evolution.diversity import common_shares, distinct_template_share
from seif_nemo.evolution.gate import count_decisions, has_rule_conflict
from seif_nemo.evolution.sifting import Sifted, sift, unfinished_share
from seif_nemo.evolution.training_phases import write_instructions
from seif_nemo.roles.follower import follower_messages
from seif_nemo.roles.instructor import draw_template
from seif_nemo.types.constraints import Instruction
from seif_nemo.types.records import Phase, RejectReason, UnitKey
from seif_nemo.types.residents import Resident
from seif_nemo.types.rollouts import Rollout, SamplingParams
from seif_nemo.types.verdicts import Outcome, Score

_OUR_FAULT = (RejectReason.UNFINISHED, RejectReason.UNPARSABLE, RejectReason.WRONG_COUNT)


def evaluate(context: Context, round: int) -> None:
    """Held-out follow rate of the Follower after `round` (0: of the base model). The unit that ends a round."""
    prompts = context.material.heldout
    about_data = context.material.counts if round == 0 else {}
    inputs = context.material.digests if round == 0 else {}
    if context.ledger.is_done(round, Phase.EVALUATION):
        return
    if not prompts:
        context.finish(UnitKey(round, Phase.EVALUATION, 0), about_data, digests=inputs)
        return
    context.replan(round, Phase.EVALUATION, 1)
    context.timers.reset()
    evolution = context.settings.evolution
    instructions = [prompt for prompt in prompts for _ in range(evolution.evaluation_samples)]
    # The same random numbers in every round: differences between rounds are then the weights' alone.
    with context.timers("total"):
        rollouts = context.speaker.speak(
            Resident.FOLLOWER,
            [follower_messages(context.material.follower_template, instruction) for instruction in instructions],
            seeds=[context.seed("evaluation", "sample", index) for index in range(len(instructions))],
            sampling=SamplingParams(context.settings.generation.max_new_tokens, evolution.evaluation_temperature),
            on_finished=context.reward.head_start(instructions),
        )
        scores = context.reward.scores(
            [(instruction, rollout.text) for instruction, rollout in zip(instructions, rollouts, strict=True)],
            judge=Resident.BASE,  # the same judge in every round
        )
    if context.may_write():
        count = evolution.evaluation_samples
        write_jsonl(
            context.paths.phase_samples(round, Phase.EVALUATION),
            [
                evaluation_row(instructions[first], rollouts[first], scores[first : first + count])
                for first in range(0, len(instructions), count)
            ],
        )
    values = about_data | evaluation_values(instructions, rollouts, scores) | context.reward.judge_values()
    values |= context.measured()
    context.finish(UnitKey(round, Phase.EVALUATION, 0), values, digests=inputs)


def evaluation_values(
    instructions: Sequence[Instruction], rollouts: Sequence[Rollout], scores: Sequence[Score]
) -> dict[str, float]:
    """Follow rate (mean of A(x, y)), strict rate (all constraints followed), and the rate by constraint kind."""
    rates = [score.follow_rate for score in scores if score.follow_rate is not None]
    passed_by_kind: dict[str, list[bool]] = defaultdict(list)
    for instruction, score in zip(instructions, scores, strict=True):
        for constraint, verdict in zip(instruction.constraints, score.verdicts, strict=True):
            if verdict.outcome is not Outcome.MISSING:
                ruled = constraint.spec if constraint.is_covered else None  # of other kinds a rule may say no alone
                kind = "judged by model" if ruled is None else ruled.kind.value
                passed_by_kind[kind].append(verdict.outcome is Outcome.PASSED)
    values = {
        "eval/num_responses": float(len(scores)),
        "eval/missing": float(len(scores) - len(rates)),
        "eval/unfinished": unfinished_share(rollouts),
        "eval/mean_tokens": float(np.mean([rollout.num_response_tokens for rollout in rollouts])),
    }
    if rates:
        values["eval/follow_rate"] = float(np.mean(rates))
        values["eval/strict_rate"] = float(np.mean([rate == 1.0 for rate in rates]))
    for kind, passed in sorted(passed_by_kind.items()):
        values[f"eval/kind/{kind}"] = float(np.mean(passed))
        values[f"eval/kind_count/{kind}"] = float(len(passed))
    return values


def evaluation_row(instruction: Instruction, rollout: Rollout, scores: Sequence[Score]) -> dict[str, object]:
    """A prompt with the first of its answers and the follow rate of all, None if that of one is not known."""
    rates = [score.follow_rate for score in scores]
    known = [rate for rate in rates if rate is not None]
    return {
        "seed_question": instruction.seed,
        "prompt": instruction.prompt,
        "constraints": [constraint.text for constraint in instruction.constraints],
        "response": rollout.text,
        "verdicts": [
            {"outcome": verdict.outcome.value, "source": verdict.source.value, "evidence": verdict.evidence}
            for verdict in scores[0].verdicts
        ],
        "follow_rate": float(np.mean(known)) if len(known) == len(rates) else None,
    }


def probe(context: Context, round: int, phase: Phase) -> None:
    """How hard the Instructor's instructions are for the frozen evaluator, on the same seeds before and after."""
    if context.ledger.is_done(round, phase):
        return
    context.replan(round, phase, 1)
    context.timers.reset()
    label = ("probe", round)  # not the phase: before and after draw the same random numbers
    seeds = context.material.probe_seeds
    templates = [
        draw_template(context.material.instructor_templates, seed=context.seed(*label, "template", index))
        for index in range(len(seeds))
    ]
    with context.timers("total"):
        _, outputs = write_instructions(context, seeds, templates, label=label)
        sifted = sift(context, outputs, answers=context.settings.reward.answers_per_instruction, label=label)
    rates = [
        None if not each or None in each else float(np.mean([rate for rate in each if rate is not None]))
        for each in sifted.follow_rates
    ]
    values = probe_values(sifted, rates) | context.reward.judge_values()
    if context.may_write():
        write_jsonl(
            context.paths.phase_samples(round, phase),
            [
                {
                    "seed_question": output.seed_question,
                    "raw": output.text,
                    "constraints": None
                    if instruction is None
                    else [constraint.text for constraint in instruction.constraints],
                    "reason": None if decision.reason is None else decision.reason.value,
                    "follow_rate": rate,
                }
                for output, decision, instruction, rate in zip(
                    outputs, sifted.decisions, sifted.answered, rates, strict=True
                )
            ],
        )
    values |= context.measured()
    context.finish(UnitKey(round, phase, 0), values, digests={})


def probe_values(sifted: Sifted, rates: Sequence[float | None]) -> dict[str, float]:
    """Metrics of a probe. `rates` has the mean follow rate of each output's answers, None where it has none.

    Difficulty is that of all that was answered, also of what solvability then refused: so it can be compared between
    runs with and without that part of the gate.
    """
    decisions = sifted.decisions
    kept = [decision.instruction for decision in decisions if decision.instruction is not None]
    known = [rate for rate in rates if rate is not None]
    solved = [any(trials) for trials in sifted.trials if trials and (any(trials) or None not in trials)]
    values = count_decisions(decisions) | {
        "probe/parse_share": 1 - sum(decision.reason in _OUR_FAULT for decision in decisions) / len(decisions),
        "probe/kept_share": len(kept) / len(decisions),
        "probe/distinct_template_share": distinct_template_share(kept),
    }
    if kept:
        values["probe/conflict_share"] = sum(map(has_rule_conflict, kept)) / len(kept)
        values["probe/common_share"] = float(np.mean(common_shares(kept)))
    if sifted.answers:
        values["probe/answers_unfinished"] = unfinished_share(sifted.answers)
    if solved:
        values["probe/solvable_share"] = float(np.mean(solved))  # by any of the answers drawn
    if known:
        values["probe/difficulty"] = 1 - float(np.mean(known))
    return values
