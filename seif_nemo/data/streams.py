"""Seeds and permutations that depend on nothing but their arguments.

Every random decision of a run takes its seed from `derive_seed(run seed, what it is for, ...)`. So a step is a pure
function of the run's seed and its own name, and a resumed run redraws exactly what was drawn before. Both functions are
built on BLAKE2b alone: their values are the same in every process, on every platform and with every version of Python
or NumPy.
"""

import hashlib

_SEED_MASK = 2**63 - 1


def derive_seed(root: int, *labels: str | int) -> int:
    """The seed for the use that `labels` name, in [0, 2**63).

    Labels are type-tagged and length-prefixed before hashing, so `("ab", "c")`, `("a", "bc")`, `("1",)` and `(1,)` all
    give different seeds. `root` may be any integer.
    """
    digest = hashlib.blake2b(digest_size=8, person=b"seif-seed")
    for part in (root, *labels):
        tag, payload = (b"s", part.encode()) if isinstance(part, str) else (b"i", str(int(part)).encode())
        digest.update(tag + str(len(payload)).encode() + b":" + payload)
    return int.from_bytes(digest.digest(), "big") & _SEED_MASK


def permutation(n: int, seed: int) -> list[int]:
    """A uniformly random order of 0..n-1: the indices sorted by a keyed hash of themselves. O(n log n)."""
    assert n >= 0, n
    key = seed.to_bytes(16, "big", signed=True)
    return sorted(range(n), key=lambda i: (hashlib.blake2b(i.to_bytes(8, "big"), digest_size=8, key=key).digest(), i))
