"""The round's Follower as a Hugging Face directory."""

from seif_nemo.evolution.context import Context
from seif_nemo.types.residents import Resident
from seif_nemo.weights.hf import export_hf


def export_follower(context: Context, round: int) -> None:
    """Write export/follower-NN, loadable by transformers and vLLM, unless it is there already. Collective."""
    target = context.paths.export(round)
    if not context.settings.checkpoint.export_hf or target.exists():
        return
    with context.bank.resident(Resident.FOLLOWER):
        export_hf(
            context.trainable.module,
            context.architecture,
            context.topology,
            target,
            source_dir=context.settings.base_model,
        )
