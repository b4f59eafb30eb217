"""The round's Follower as a Hugging Face directory."""

from seif_nemo.evolution.context import Context
from seif_nemo.parallel.collectives import any_rank
from seif_nemo.types.residents import Resident
from seif_nemo.weights.hf import export_hf


def export_follower(context: Context, round: int) -> None:
    """Write export/follower-NN, loadable by transformers and vLLM, unless it is there already. Collective."""
    target = context.paths.export(round)
    is_wanted = context.settings.checkpoint.export_hf and context.may_write() and not target.exists()
    if not any_rank(is_wanted, context.topology):  # the main rank says; what another sees of a disk may be old
        return
    with context.bank.resident(Resident.FOLLOWER):
        export_hf(
            context.trainable.modules,
            context.architecture,
            context.topology,
            target,
            source_dir=context.settings.base_model,
            check_fence=context.ledger.check_fence,
        )
