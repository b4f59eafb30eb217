"""The round's Follower as a Hugging Face directory, and its adapter as a PEFT directory if it is one."""

from pathlib import Path

from seif_nemo.config.roles import LoraConfig
from seif_nemo.evolution.context import Context
from seif_nemo.parallel.collectives import any_rank
from seif_nemo.types.residents import Resident
from seif_nemo.weights.hf import export_hf
from seif_nemo.weights.peft import export_adapter


def export_follower(context: Context, round: int) -> None:
    """Write export/follower-NN, loadable by transformers and vLLM, unless it is there already. Collective.

    An adapter is merged into the base model there, and written for PEFT and vLLM to export/follower-NN-adapter.
    """
    if context.settings.checkpoint.export_hf:
        _export_whole(context, round)
    if context.settings.lora is not None and context.settings.lora.export_adapter:
        _export_adapter(context, round, context.settings.lora)


def _is_wanted(context: Context, target: Path) -> bool:
    """The main rank says whether it is not there yet: what another rank sees of a disk may be old. Collective."""
    return any_rank(context.may_write() and not target.exists(), context.topology)


def _export_whole(context: Context, round: int) -> None:
    target = context.paths.export(round)
    if not _is_wanted(context, target):
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


def _export_adapter(context: Context, round: int, lora: LoraConfig) -> None:
    target = context.paths.export_adapter(round)
    if not _is_wanted(context, target):
        return
    assert context.base is not None
    with context.bank.resident(Resident.FOLLOWER):
        export_adapter(
            context.trainable.modules,
            context.architecture,
            context.topology,
            target,
            lora,
            base_dir=context.settings.base_model,
            base_digest=context.base.digest,
            check_fence=context.ledger.check_fence,
        )
