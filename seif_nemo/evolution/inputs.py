"""What a run was given, pinned: an attempt that finds other files under the same names does not go on."""

from pathlib import Path

from seif_nemo.config.root import Config
from seif_nemo.evolution.ledger import Ledger
from seif_nemo.parallel.digest import digest_file, digest_folder_sample, odd_rank
from seif_nemo.parallel.topology import Topology
from seif_nemo.types.records import Phase


def input_digests(config: Config) -> dict[str, str]:
    """Digests of the data files and of the base model, by the key that names them."""
    files = {
        "data.seeds": config.data.seeds,
        "data.probe_seeds": config.data.probe_seeds,
        "data.heldout": config.data.heldout,
    }
    digests = {key: digest_file(Path(path)) for key, path in files.items() if path is not None}
    digests["model.path"] = digest_folder_sample(Path(config.model.path))
    if (adapter := config.roles.lora.adapter) is not None:
        if not Path(adapter).is_dir():
            raise ValueError(f"roles.lora.adapter={adapter} is no directory: it must be one that PEFT saved")
        digests["roles.lora.adapter"] = digest_folder_sample(Path(adapter))
    return digests


def check_inputs(digests: dict[str, str], ledger: Ledger, config: Config, topology: Topology) -> None:
    """Raises ValueError if an input is not what it was when this run began (its first evaluation's entry says so).

    Collective: raises on all ranks, too, if one of them sees another file or another ledger than the main rank.
    """
    for name, digest in (digests | {"ledger.jsonl": ledger.digest}).items():
        rank = odd_rank(digest, group=topology.world_group, device=topology.device)
        if rank is not None:
            raise ValueError(f"{name} is not the same on rank {rank} as on rank 0: all nodes must see the same files")
    begun_with = ledger.find(0, Phase.EVALUATION)
    if begun_with is None:
        return
    paths = {"data.seeds": config.data.seeds, "data.probe_seeds": config.data.probe_seeds}
    paths |= {"data.heldout": config.data.heldout, "model.path": config.model.path}
    paths["roles.lora.adapter"] = config.roles.lora.adapter
    for key, digest in digests.items():
        if begun_with.digests[key] != digest:
            raise ValueError(
                f"{key}={paths[key]} has changed since this run began: put back what it was, or choose another run.name"
            )
