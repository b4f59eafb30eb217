"""The synthesis phase: the trained Instructor writes constraints for every seed; the gate decides what is kept.

Each step handles a batch of seeds and leaves one part file; the last step merges the parts into q.parquet and
rejected.parquet. The same set of constraints is kept once: repeated demands teach little and feed collapse.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from seif_nemo.constraints.parse import parse_constraint
from seif_nemo.data.files import write_jsonl
from seif_nemo.data.store import write_instructions as write_kept
from seif_nemo.data.store import write_rejected
from seif_nemo.evolution.changed_files import ChangedFileError
from seif_nemo.evolution.codec import CODEC
from seif_nemo.evolution.context import Context
from seif_nemo.evolution.diversity import common_shares, distinct_template_share
from seif_nemo.evolution.gate import GateDecision, InstructorOutput, count_decisions, has_rule_conflict
from seif_nemo.evolution.sifting import sift, unfinished_share
from seif_nemo.evolution.training_phases import write_instructions
from seif_nemo.parallel.digest import digest_file, join_digests, odd_rank
from seif_nemo.roles.instructor import draw_template
from seif_nemo.types.constraints import Instruction
from seif_nemo.types.records import (
    KeptInstruction,
    Phase,
    RejectedInstruction,
    RejectReason,
    SeedQuestion,
    UnitKey,
)
from seif_nemo.types.residents import Resident


class GateKeptTooLittleError(RuntimeError):
    """The Instructor's output is unusable; training the Follower on it would be worse than stopping."""


def synthesise(context: Context, round: int) -> None:
    """Write q.parquet and rejected.parquet of a round. Raises GateKeptTooLittleError."""
    evolution = context.settings.evolution
    tasks = [seed for seed in context.material.seeds for _ in range(evolution.samples_per_seed)]
    batch = evolution.synthesis_batch
    total = -(-len(tasks) // batch)
    context.replan(round, Phase.SYNTHESIS, total)
    for step in range(context.ledger.next_step(round, Phase.SYNTHESIS), total):
        context.timers.reset()
        with context.timers("total"):
            values = synthesise_batch(context, round, step, tasks[step * batch : (step + 1) * batch])
            digests: dict[str, str] = {}
            if step + 1 == total:
                merged = merge_parts(context, round, total)
                values, digests = values | merged.values, merged.digests
        values |= context.measured()
        context.finish(UnitKey(round, Phase.SYNTHESIS, step), values, digests=digests)


def synthesise_batch(context: Context, round: int, step: int, seeds: Sequence[SeedQuestion]) -> dict[str, float]:
    """One part file: what the Instructor wrote for `seeds` and what the gate said."""
    label = ("round", round, "synthesis", step)
    templates = [
        draw_template(context.material.instructor_templates, seed=context.seed(*label, "template", index))
        for index in range(len(seeds))
    ]
    with context.timers("generate"):
        _, outputs = write_instructions(context, seeds, templates, label=label)
    with context.timers("answer"):
        sifted = sift(context, outputs, answers=0, label=label)
    if context.may_write():
        write_jsonl(
            context.paths.synthesis_part(round, step),
            [_part_row(output, decision) for output, decision in zip(outputs, sifted.decisions, strict=True)],
        )
    context.sync()
    values = count_decisions(sifted.decisions) | context.reward.judge_values()
    if sifted.answers:
        values["answers/unfinished"] = unfinished_share(sifted.answers)
    return values


def _part_row(output: InstructorOutput, decision: GateDecision) -> dict[str, object]:
    instruction = decision.instruction
    return {
        "seed_question": output.seed_question,
        "template": output.template.name,
        "raw": output.text,
        "prompt": None if instruction is None else instruction.prompt,
        "constraints": None if instruction is None else [constraint.text for constraint in instruction.constraints],
        "reason": None if decision.reason is None else decision.reason.value,
        "detail": decision.detail,
    }


@dataclass(frozen=True, slots=True)
class Merged:
    values: dict[str, float]
    digests: dict[str, str]


def merge_parts(context: Context, round: int, num_parts: int) -> Merged:
    """Write both parquet files from all parts. Every rank reads the parts and so knows the result.

    Raises ChangedFileError on all ranks if one of them does not see what the main rank wrote.
    """
    digest = context.bank.digest(Resident.INSTRUCTOR)
    kept: list[KeptInstruction] = []
    passed: list[Instruction] = []  # with repetitions: what the Instructor narrows down to must show
    rejected: list[RejectedInstruction] = []
    seen: set[tuple[str, ...]] = set()
    for part in range(num_parts):
        for line in context.paths.synthesis_part(round, part).read_text(encoding="utf-8").split("\n")[:-1]:
            row = json.loads(line)
            texts, seed = row["constraints"], row["seed_question"]
            identity = () if texts is None else tuple(sorted(text.strip().lower() for text in texts))
            constraints = tuple(parse_constraint(text) for text in texts or ())
            if texts is not None:
                passed.append(Instruction(seed, constraints, row["prompt"]))
            if texts is not None and identity not in seen:
                seen.add(identity)
                kept.append(KeptInstruction(seed, row["prompt"], constraints, round, digest))
            else:
                reason = RejectReason.DUPLICATE if row["reason"] is None else RejectReason(row["reason"])
                rejected.append(RejectedInstruction(seed, row["raw"], reason, row["detail"], round, digest))
    paths = (context.paths.instructions(round), context.paths.rejected(round))
    if context.may_write():
        write_kept(paths[0], kept, CODEC)
        write_rejected(paths[1], rejected)
    context.sync()
    digests = {path.name: digest_file(path) for path in paths}
    sight = join_digests([*digests.values(), str(len(kept)), str(len(rejected))])
    rank = odd_rank(sight, group=context.topology.world_group, device=context.topology.device)
    if rank is not None:
        raise ChangedFileError(f"rank {rank} reads other parts of round {round} below {paths[0].parent} than rank 0")
    refuse_scraps(kept, rejected, min_kept_share=context.settings.evolution.min_kept_share, where=str(paths[1]))
    instructions = [Instruction(row.seed_question, row.constraints, row.prompt) for row in kept]
    return Merged(
        values={
            "synthesis/kept": float(len(kept)),
            "synthesis/asked": float(len(kept) + len(rejected)),
            "synthesis/distinct_template_share": distinct_template_share(passed),
            "synthesis/common_share": math.fsum(common_shares(passed)) / len(passed),
            "synthesis/conflict_share": sum(map(has_rule_conflict, instructions)) / len(instructions),
        }
        | {
            f"synthesis/rejected/{reason}": float(count)
            for reason, count in sorted(Counter(row.reason.value for row in rejected).items())
        },
        digests=digests,
    )


def refuse_scraps(
    kept: Sequence[KeptInstruction], rejected: Sequence[RejectedInstruction], *, min_kept_share: float, where: str
) -> None:
    """Raises GateKeptTooLittleError, with the counts by reason, if hardly anything was kept."""
    asked = len(kept) + len(rejected)
    if kept and len(kept) >= min_kept_share * asked:
        return
    counts = Counter(row.reason.value for row in rejected)
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
    raise GateKeptTooLittleError(
        f"gate kept {len(kept)} of {asked} ({reasons}); evolution.min_kept_share={min_kept_share}. "
        f"What was refused and why: {where}"
    )
