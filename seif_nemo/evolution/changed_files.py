"""Files of the run that a later phase reads: every rank must see what the run wrote."""

from pathlib import Path

from seif_nemo.parallel.collectives import any_rank
from seif_nemo.parallel.digest import digest_file
from seif_nemo.parallel.topology import Topology


class ChangedFileError(RuntimeError):
    """A file of the run is not what the run wrote."""


def all_see(path: Path, digest: str, topology: Topology) -> bool:
    """Whether the file of this digest is at `path` for every rank: a node may see less of a shared disk."""
    return not any_rank(not path.is_file() or digest_file(path) != digest, topology)
