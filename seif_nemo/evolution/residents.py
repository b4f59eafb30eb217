"""Which weights each resident holds at the start of a round, after a fresh start or a resume."""

from pathlib import Path

from seif_nemo.evolution.context import Context
from seif_nemo.evolution.ledger import LedgerEntry
from seif_nemo.evolution.ppo import critic_of
from seif_nemo.types.records import Phase
from seif_nemo.types.residents import Resident


def begin_round(context: Context, round: int) -> None:
    """Bring the bank to where round `round` stands by the ledger.

    evaluator and reference := Follower and Instructor as the round before left them; instructor and follower := their
    newest checkpoint, which may lie inside this round; a critic goes with its role. Loads only what the bank does not
    hold yet.
    """
    ledger = context.ledger
    _hold(context, Resident.FOLLOWER, ledger.last_checkpoint(Phase.FOLLOWER, until_round=round - 1))
    context.bank.copy(Resident.FOLLOWER, Resident.EVALUATOR)
    _hold(context, Resident.INSTRUCTOR, ledger.last_checkpoint(Phase.INSTRUCTOR, until_round=round - 1))
    context.bank.copy(Resident.INSTRUCTOR, Resident.REFERENCE)
    _hold(context, Resident.FOLLOWER, ledger.last_checkpoint(Phase.FOLLOWER, until_round=round))
    _hold(context, Resident.INSTRUCTOR, ledger.last_checkpoint(Phase.INSTRUCTOR, until_round=round))


def _hold(context: Context, role: Resident, entry: LedgerEntry | None) -> None:
    """Make `role` and its critic hold the weights of a ledger entry (None: the base model's, which they start with)."""
    if entry is None:
        return
    assert entry.checkpoint is not None
    path = context.paths.root / entry.checkpoint
    _load(context, role, path, entry.digests[role.value])
    if (critic := critic_of(context, role)) is not None:
        _load(context, critic, context.paths.critic_checkpoint(path), entry.digests[critic.value])


def _load(context: Context, resident: Resident, path: Path, digest: str) -> None:
    if context.bank.digest(resident) != digest:
        context.checkpoints.load(context.trainable, context.bank, resident, path, expect_digest=digest)
