"""The whole gate over a batch of Instructor outputs: its rules, the model Filter, and what the answers show.

The frozen evaluator's answers are drawn once; solvability, the Instructor's reward and the probes read the same ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seif_nemo.evolution.context import Context
from seif_nemo.evolution.gate import GateDecision, InstructorOutput, refuse_unsolvable
from seif_nemo.types.constraints import Instruction
from seif_nemo.types.rollouts import FinishReason, Rollout
from seif_nemo.types.verdicts import Outcome, Score


@dataclass(frozen=True, slots=True)
class Sifted:
    """What became of each output. Without an instruction that passed the rules and the Filter, it has no answers."""

    decisions: list[GateDecision]
    answered: list[Instruction | None]  # also those that turned out unsolvable
    follow_rates: list[list[float | None]]  # of each answer; None where a verdict is missing
    trials: list[list[bool | None]]  # whether each answer satisfies all (`satisfies_all`)
    answers: list[Rollout]  # of all outputs, in order


def sift(context: Context, outputs: Sequence[InstructorOutput], *, answers: int, label: Sequence[str | int]) -> Sifted:
    """The gate's decisions on `outputs`, with `answers` answers to each or more if solvability needs more. Collective.

    `label` names the random streams. An answer shows an instruction solvable if it is finished and satisfies all.
    """
    return sift_later(context, outputs, answers=answers, label=label)()


def sift_later(
    context: Context, outputs: Sequence[InstructorOutput], *, answers: int, label: Sequence[str | int]
) -> Callable[[], Sifted]:
    """As `sift`, up to the answers; the call of what this returns waits for their verdicts and is collective too."""
    decisions = context.gate.sift(
        outputs, seeds=[context.seed(*label, "filter", index) for index in range(len(outputs))]
    )
    answered = [decision.instruction for decision in decisions]
    samples = context.settings.evolution.solvability_samples
    asked = [
        (index, instruction, answer)
        for index, instruction in enumerate(answered)
        if instruction is not None
        for answer in range(max(answers, samples))
    ]
    rates: list[list[float | None]] = [[] for _ in outputs]
    trials: list[list[bool | None]] = [[] for _ in outputs]
    if not asked:
        return lambda: Sifted(decisions, answered, rates, trials, [])
    rollouts = context.reward.answers(
        [instruction for _, instruction, _ in asked],
        seeds=[context.seed(*label, "answer", index, answer) for index, _, answer in asked],
    )
    scores = context.reward.scores_later(
        [(instruction, rollout.text) for (_, instruction, _), rollout in zip(asked, rollouts, strict=True)]
    )

    def finish() -> Sifted:
        for (index, _, _), rollout, score in zip(asked, rollouts, scores(), strict=True):
            rates[index].append(score.follow_rate)
            trials[index].append(satisfies_all(rollout, score))
        return Sifted(refuse_unsolvable(decisions, trials, samples=samples), answered, rates, trials, rollouts)

    return finish


def satisfies_all(rollout: Rollout, score: Score) -> bool | None:
    """Whether an answer is finished and satisfies every constraint. None if only a missing verdict leaves it open."""
    outcomes = [verdict.outcome for verdict in score.verdicts]
    if rollout.finish_reason is not FinishReason.STOP or Outcome.FAILED in outcomes:
        return False
    return None if Outcome.MISSING in outcomes else True


def unfinished_share(rollouts: Sequence[Rollout]) -> float:
    """How many responses ran out of tokens."""
    return sum(rollout.finish_reason is not FinishReason.STOP for rollout in rollouts) / len(rollouts)
