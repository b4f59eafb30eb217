"""What ranks on different nodes see of one run: its files, its inputs and its ledger."""

from pathlib import Path

from seif_nemo.config.data import DataConfig
from seif_nemo.config.model import ModelConfig
from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.config.root import Config
from seif_nemo.evolution.changed_files import all_see
from seif_nemo.evolution.inputs import check_inputs
from seif_nemo.evolution.ledger import Ledger
from seif_nemo.parallel.digest import digest_file
from seif_nemo.parallel.topology import build_topology, shutdown
from seif_nemo.types.records import Phase, UnitKey
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


def _check(root: Path) -> list[str]:
    topology = build_topology(ParallelConfig(), seed=0, threads=1, rendezvous_timeout_s=60)
    config = Config(model=ModelConfig(path="base"), data=DataConfig(seeds="seeds.parquet"))
    good = {"data.seeds": "00" * 16, "model.path": "11" * 16}
    ledgers = [Ledger(root / name, attempt=1, writable=False) for name in ("ledger.jsonl", "none.jsonl")]
    cases = [
        (good, ledgers[0]),
        (good | ({"data.seeds": "22" * 16} if topology.rank == 1 else {}), ledgers[0]),
        (good, ledgers[topology.rank]),
    ]
    said: list[str] = []
    for digests, ledger in cases:
        try:
            check_inputs(digests, ledger, config, topology)
            said.append("")
        except ValueError as error:
            said.append(str(error))
    shutdown(topology)
    return said


def test_all_ranks_refuse_inputs_that_are_not_the_same_for_all(tmp_path: Path) -> None:
    digests = {"data.seeds": "00" * 16, "model.path": "11" * 16}
    Ledger(tmp_path / "ledger.jsonl", attempt=1, writable=True).append(UnitKey(0, Phase.EVALUATION, 0), digests=digests)
    refusal = "is not the same on rank 1 as on rank 0: all nodes must see the same files"
    for said in run_ranks(2, _check, tmp_path):
        assert said == ["", f"data.seeds {refusal}", f"ledger.jsonl {refusal}"]
