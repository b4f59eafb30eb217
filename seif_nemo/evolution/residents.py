"""Which weights each resident holds at the start of a round, after a fresh start or a resume."""

from collections.abc import Iterable
from pathlib import Path

from seif_nemo.evolution.context import Context
from seif_nemo.evolution.ledger import LedgerEntry, last_checkpoint
from seif_nemo.evolution.ppo import critic_of
from seif_nemo.types.records import Phase
from seif_nemo.types.residents import Resident


def begin_round(context: Context, round: int) -> None:
    """Bring the bank to where round `round` stands by the ledger.

    evaluator and reference := Follower and Instructor as the round before left them; instructor and follower := their
    newest checkpoint, which may lie inside this round; a critic goes with its role. Loads only what the bank does not
    hold yet. Raises CheckpointError naming a file that is not what was saved.
    """
    for role, copy in ((Resident.FOLLOWER, Resident.EVALUATOR), (Resident.INSTRUCTOR, Resident.REFERENCE)):
        _hold(context, role, entry_for(context.ledger, role, until_round=round - 1))
        context.bank.copy(role, copy)
    for role in (Resident.FOLLOWER, Resident.INSTRUCTOR):
        _hold(context, role, entry_for(context.ledger, role, until_round=round))


def entry_for(entries: Iterable[LedgerEntry], role: Resident, *, until_round: int) -> LedgerEntry | None:
    """Where the weights of `role` are at the end of a round, or as far as that has come. None: the base model."""
    phase = Phase.INSTRUCTOR if role is Resident.INSTRUCTOR else Phase.FOLLOWER
    return last_checkpoint(entries, phase, until_round=until_round)


def checkpoints_of(context: Context, role: Resident, entry: LedgerEntry) -> dict[Path, tuple[Resident, str]]:
    """The checkpoints that an entry names, each with its resident and the digest of its weights."""
    assert entry.checkpoint is not None
    path = context.paths.root / entry.checkpoint
    found = {path: (role, entry.digests[role.value])}
    if (critic := critic_of(context, role)) is not None:
        found[context.paths.critic_checkpoint(path)] = (critic, entry.digests[critic.value])
    return found


def _hold(context: Context, role: Resident, entry: LedgerEntry | None) -> None:
    """Make `role` and its critic hold the weights of a ledger entry (None: the base model's, which they start with)."""
    if entry is None:
        return
    for path, (resident, digest) in checkpoints_of(context, role, entry).items():
        _load(context, resident, path, digest)


def _load(context: Context, resident: Resident, path: Path, digest: str) -> None:
    if context.bank.digest(resident) != digest:
        context.checkpoints.load(context.trainable, context.bank, resident, path, expect_digest=digest)
