import pytest

from seif_nemo.evolution.synthesis import GateKeptTooLittleError, refuse_scraps
from seif_nemo.types.records import KeptInstruction, RejectedInstruction, RejectReason


def _kept(count):
    return [KeptInstruction("s", "p", (), 1, "d")] * count


def _rejected(reason, count):
    return [RejectedInstruction("s", "raw", reason, "", 1, "d")] * count


def test_nothing_kept_names_the_counts_by_reason():
    rejected = _rejected(RejectReason.UNPARSABLE, 3) + _rejected(RejectReason.UNFINISHED, 5)
    with pytest.raises(GateKeptTooLittleError, match=r"gate kept 0 of 8 \(unfinished 5, unparsable 3\)"):
        refuse_scraps([], rejected, min_kept_share=0.0, where="rejected.parquet")


def test_the_share_decides():
    rejected = _rejected(RejectReason.CONFLICT, 9)
    refuse_scraps(_kept(1), rejected, min_kept_share=0.1, where="x")
    with pytest.raises(GateKeptTooLittleError, match=r"gate kept 1 of 10 \(conflict 9\)"):
        refuse_scraps(_kept(1), rejected, min_kept_share=0.11, where="x")
