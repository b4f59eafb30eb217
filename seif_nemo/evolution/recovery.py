"""Going on where a checkpoint is damaged: from the newest whole one before it (`checkpoint.resume=latest_good`).

The ledger's units from the damaged one on no longer count and are done again; in deterministic mode they come out the
same. What they left is set aside, never removed. `checkpoint.keep` says how many steps of a phase there are to go back
to; beyond them it goes on from the end of the phase before, or of the round before.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from seif_nemo.checkpointing.manifest import CheckpointError
from seif_nemo.config.checkpoint import Resume
from seif_nemo.evolution.context import Context
from seif_nemo.evolution.ledger import LedgerEntry
from seif_nemo.evolution.paths import RunPaths
from seif_nemo.evolution.residents import checkpoints_of, entry_for
from seif_nemo.types.records import Phase
from seif_nemo.types.residents import Resident

SET_ASIDE = "set-aside"
_ROLES = (Resident.INSTRUCTOR, Resident.FOLLOWER)
_logger = logging.getLogger(__name__)


def recover(context: Context) -> None:
    """Make the ledger end where the run can go on. Collective; does nothing with `checkpoint.resume=strict`.

    Every file that the resume will read is verified here. What is damaged, and what followed it, is moved into folders
    `set-aside`; then a line of the ledger says how many units still count. It is logged and `resume/superseded_units`
    is in the metrics of the next unit.
    """
    if context.settings.checkpoint.resume is Resume.strict:
        return
    entries = list(context.ledger)
    kept = len(entries)
    problems: list[str] = []
    while (found := _first_problem(context, entries[:kept])) is not None:
        kept, problem = found
        problems.append(problem)
    if not problems:
        return
    suffix = f"attempt-{context.ledger.attempt}"
    moved = {path: aside(path, suffix) for path in superseded(context.paths, entries[:kept], entries[kept:])}
    context.checkpoints.set_aside(moved)
    where = "the base model" if kept == 0 else str(entries[kept - 1].key)
    reason = (
        f"{'; '.join(problems)}. The run goes on from {where}: {len(entries) - kept} units are done again. Set aside: "
        + (", ".join(str(path.relative_to(context.paths.root)) for path in moved.values()) or "nothing")
    )
    context.ledger.rewind(kept, reason)
    _logger.warning("%s", reason)
    context.saver.note({"resume/superseded_units": float(len(entries) - kept)})


def _first_problem(context: Context, entries: Sequence[LedgerEntry]) -> tuple[int, str] | None:
    """The place of the earliest unit among those to load whose checkpoint is not whole, and what is wrong with it."""
    done = {entry.key.round for entry in entries if entry.key.phase is Phase.EVALUATION}
    round = next((r for r in range(1, context.settings.evolution.rounds + 1) if r not in done), None)
    if round is None:
        return None
    needed: dict[int, tuple[Resident, LedgerEntry]] = {}
    for role in _ROLES:
        for until in (round - 1, round):
            if (entry := entry_for(entries, role, until_round=until)) is not None:
                needed[entries.index(entry)] = role, entry
    for place, (role, entry) in sorted(needed.items()):
        for path, (_, digest) in checkpoints_of(context, role, entry).items():
            try:
                context.checkpoints.verify(path, expect_digest=digest)
            except CheckpointError as error:
                return place, str(error)
    return None


def superseded(paths: RunPaths, kept: Sequence[LedgerEntry], dropped: Sequence[LedgerEntry]) -> list[Path]:
    """What lies in the run directory of steps that no kept entry covers, the dropped entries' own first.

    Names of steps that are to be made again must be free: retention keeps the highest.
    """
    last = {(entry.key.round, entry.key.phase): entry.key.step for entry in kept}
    found = [paths.root / entry.checkpoint for entry in dropped if entry.checkpoint is not None]
    for directory in sorted(paths.root.glob("rounds/*/*")):
        if directory.name not in (Phase.INSTRUCTOR.value, Phase.FOLLOWER.value):
            continue
        key = int(directory.parent.name), Phase(directory.name)
        for path in sorted([*directory.glob("step-*"), *directory.glob("critic/step-*")]):
            if int(path.name.removeprefix("step-")) > last.get(key, -1):
                found.append(path)
    found += [paths.export(entry.key.round) for entry in dropped if entry.key.phase is Phase.FOLLOWER]
    return [path for path in dict.fromkeys(found) if path.exists()]


def aside(path: Path, suffix: str) -> Path:
    """Where a directory is moved to: beside it, out of the way of those that count."""
    return path.parent / SET_ASIDE / f"{path.name}.{suffix}"
