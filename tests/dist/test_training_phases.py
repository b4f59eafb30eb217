"""What the training phases read, seen by ranks on different nodes."""

from pathlib import Path

from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.evolution.training_phases import all_see
from seif_nemo.parallel.digest import digest_file
from seif_nemo.parallel.topology import build_topology, shutdown
from tests.dist.harness import run_ranks


def _look(paths: dict[str, list[str]], digest: str) -> dict[str, bool]:
    topology = build_topology(ParallelConfig(), seed=0, threads=1, rendezvous_timeout_s=60)
    seen = {case: all_see(Path(of_rank[topology.rank]), digest, topology) for case, of_rank in paths.items()}
    shutdown(topology)
    return seen


def test_all_ranks_refuse_what_one_of_them_does_not_see(tmp_path: Path) -> None:
    good, other = tmp_path / "q.parquet", tmp_path / "old.parquet"
    good.write_bytes(b"new")
    other.write_bytes(b"old")
    paths = {
        "all good": [str(good), str(good)],
        "one old": [str(good), str(other)],
        "main rank old": [str(other), str(good)],
        "one missing": [str(good), str(tmp_path / "none.parquet")],
    }
    for seen in run_ranks(2, _look, paths, digest_file(good)):
        assert seen == {"all good": True, "one old": False, "main rank old": False, "one missing": False}
