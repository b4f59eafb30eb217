import hashlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seif_nemo.data.streams import derive_seed, permutation


def test_seed_is_the_documented_hash():
    message = b"i1:7" + b"s8:rollouts" + b"i1:3"
    digest = hashlib.blake2b(message, digest_size=8, person=b"seif-seed").digest()
    assert derive_seed(7, "rollouts", 3) == int.from_bytes(digest, "big") & (2**63 - 1)


def test_seeds_are_the_same_in_another_process():
    code = "from seif_nemo.data.streams import *; print(derive_seed(0, 'a', 1), permutation(6, 5))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == f"{derive_seed(0, 'a', 1)} {permutation(6, 5)}"


def test_labels_of_different_shape_give_different_seeds():
    names = [(), ("",), ("ab", "c"), ("a", "bc"), ("abc",), ("1",), (1,), ("1", "1"), (11,), (1, 1), (-1,)]
    assert len({derive_seed(0, *labels) for labels in names}) == len(names)
    assert derive_seed(0, "a") != derive_seed(1, "a")


@given(st.integers(), st.lists(st.text() | st.integers()))
def test_seeds_have_63_bits(root: int, labels: list[str | int]):
    assert 0 <= derive_seed(root, *labels) < 2**63


@given(st.integers(0, 200), st.integers(0, 2**63 - 1))
def test_permutation_holds_every_index_once(n: int, seed: int):
    assert sorted(permutation(n, seed)) == list(range(n))


def test_permutations_are_uniform():
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(6000):
        order = tuple(permutation(3, seed))
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    # each count is binomial(6000, 1/6): standard deviation 29, so 150 is five of them
    assert all(abs(count - 1000) < 150 for count in counts.values()), counts


def test_seed_order_matters():
    assert permutation(50, 1) != permutation(50, 2)
    assert permutation(50, 1) == permutation(50, 1)


def test_negative_size_is_a_bug():
    with pytest.raises(AssertionError):
        permutation(-1, 0)
