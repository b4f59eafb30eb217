"""The gate between an Instructor's output and everything that uses it.

parse → count → distinct → is a constraint → a rule covers it (rules-only judging) → no rule conflict, also with what
the seed itself demands → fits the model → model Filter → solvable. The same gate decides what the Instructor is paid
for and what the Follower is trained on. `sifting.py` draws the answers that solvability asks about.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seif_nemo.config.evolution import GateRules
from seif_nemo.config.reward import Judging
from seif_nemo.constraints.conflict import find_conflicts, repeats
from seif_nemo.constraints.parse import parse_constraint
from seif_nemo.roles.follower import compose_prompt
from seif_nemo.roles.instructor import ParseFailure, parse_instruction
from seif_nemo.roles.prompts import FollowerTemplate, InstructorTemplate
from seif_nemo.types.constraints import Constraint, Instruction, Reading
from seif_nemo.types.records import RejectReason


@dataclass(frozen=True, slots=True)
class InstructorOutput:
    """What an Instructor wrote to one prompt. `finished` is False if it ran into the token limit."""

    seed_question: str
    text: str
    template: InstructorTemplate
    finished: bool


@dataclass(frozen=True, slots=True)
class GateDecision:
    """`instruction` is set iff the output was kept; else `reason` and `detail` say why not."""

    instruction: Instruction | None
    reason: RejectReason | None = None
    detail: str = ""


class Gate:
    """`model_filter` answers for many instructions at once: True = keep, None = no verdict (see Reward.keep)."""

    def __init__(
        self,
        *,
        rules: GateRules,
        judging: Judging,
        follower_template: FollowerTemplate,
        fits: Callable[[Instruction], bool],
        model_filter: Callable[[Sequence[Instruction], Sequence[int]], list[bool | None]],
    ) -> None:
        self._rules = rules
        self._judging = judging
        self._follower_template = follower_template
        self._fits = fits
        self._model_filter = model_filter

    def sift(self, outputs: Sequence[InstructorOutput], *, seeds: Sequence[int]) -> list[GateDecision]:
        """One decision per output, in order. Collective, because of the model Filter."""
        decisions = [self._apply_rules(output) for output in outputs]
        asked = [index for index, decision in enumerate(decisions) if decision.instruction is not None]
        instructions = [_kept(decisions[index]) for index in asked]
        for index, keep in zip(asked, self._model_filter(instructions, [seeds[i] for i in asked]), strict=True):
            if keep is None:
                decisions[index] = GateDecision(None, RejectReason.FILTER_MISSING, "the Filter gave no verdict")
            elif not keep:
                decisions[index] = GateDecision(None, RejectReason.FILTERED, "the Filter found a contradiction")
        return decisions

    def _apply_rules(self, output: InstructorOutput) -> GateDecision:
        if not output.finished:
            return GateDecision(None, RejectReason.UNFINISHED, "ran into the token limit")
        texts = parse_instruction(output.text, output.template)
        if isinstance(texts, ParseFailure):
            return GateDecision(None, texts.reason, texts.detail)
        constraints = tuple(parse_constraint(text) for text in texts)
        refusal = self._refuse(constraints, output.seed_question) if self._rules is GateRules.full else None
        if refusal is not None:
            return refusal
        prompt = compose_prompt(self._follower_template, output.seed_question, texts)
        instruction = Instruction(output.seed_question, constraints, prompt)
        if not self._fits(instruction):
            return GateDecision(None, RejectReason.TOO_LONG, f"{len(prompt)} characters")
        return GateDecision(instruction)

    def _refuse(self, constraints: tuple[Constraint, ...], seed_question: str) -> GateDecision | None:
        repeated = repeats(constraints)
        if repeated:
            return GateDecision(None, RejectReason.REPEATED, repeated[0].reason)
        for constraint in constraints:
            if constraint.reading is Reading.NOT_A_CONSTRAINT:
                return GateDecision(None, RejectReason.NOT_A_CONSTRAINT, constraint.text)
            if self._judging is Judging.rules and not constraint.is_covered:
                return GateDecision(None, RejectReason.NO_RULE, constraint.text)
        contradictions = find_conflicts(constraints, seed_question)
        if not contradictions:
            return None
        first = contradictions[0]
        if not first.demands:
            return GateDecision(None, RejectReason.CONFLICT, first.reason)
        said = "; ".join(demand.text for demand in first.demands)
        return GateDecision(None, RejectReason.SEED_CONFLICT, f"{first.reason}. The seed says: {said}")


def _kept(decision: GateDecision) -> Instruction:
    assert decision.instruction is not None
    return decision.instruction


def refuse_unsolvable(
    decisions: Sequence[GateDecision], trials: Sequence[Sequence[bool | None]], *, samples: int
) -> list[GateDecision]:
    """The gate's last question: did one of the first `samples` answers satisfy all of the instruction? 0: not asked.

    `trials` has for each decision what came of its answers: True, False, or None where a missing verdict leaves it
    open. Only a proof refuses: an instruction with an open trial is kept.
    """
    judged: list[GateDecision] = []
    for decision, of_one in zip(decisions, trials, strict=True):
        first = of_one[:samples]
        if decision.instruction is None or not first or any(trial is not False for trial in first):
            judged.append(decision)
        else:
            assert len(first) == samples, (len(first), samples)
            judged.append(GateDecision(None, RejectReason.UNSOLVABLE, f"0 of {samples} answers satisfy all of it"))
    return judged


def count_decisions(decisions: Sequence[GateDecision]) -> dict[str, float]:
    """`gate/asked`, `gate/kept` and one `gate/<reason>` for every reason that occurred."""
    reasons = Counter(decision.reason.value for decision in decisions if decision.reason is not None)
    kept = sum(decision.instruction is not None for decision in decisions)
    counts = {"gate/asked": float(len(decisions)), "gate/kept": float(kept)}
    return counts | {f"gate/{reason}": float(count) for reason, count in sorted(reasons.items())}


def has_rule_conflict(instruction: Instruction) -> bool:
    return bool(find_conflicts(instruction.constraints, instruction.seed))
