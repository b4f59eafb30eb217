"""Which prompts a step of a training phase uses, as a pure function of (phase, step).

The items of a phase form one endless stream: epoch after epoch, each a fresh permutation of all items. Step s takes the
next `fresh_per_step` items of it. Batches are always full: the last batch of the phase runs on into the next epoch's
permutation, so that every item is seen at least `epochs` times and a data set smaller than a batch still gives a step.
"""

import functools
import math
from dataclasses import dataclass

from seif_nemo.data.streams import derive_seed, permutation


def num_steps(n: int, *, epochs: int, prompts_per_step: int, max_steps: int | None = None) -> int:
    """Steps for `epochs` passes over n items, the last one rounded up to a full batch; at most `max_steps`."""
    assert n >= 0, n
    assert epochs >= 0, epochs
    assert prompts_per_step >= 1, prompts_per_step
    steps = math.ceil(n * epochs / prompts_per_step)
    return steps if max_steps is None else min(steps, max_steps)


@dataclass(frozen=True, slots=True)
class Pick:
    """One prompt of a batch: item `index` of this phase's items, or, if `replayed`, of the earlier rounds' items."""

    index: int
    replayed: bool


@dataclass(frozen=True, slots=True)
class PhaseSampler:
    """The batches of one training phase.

    With a `replay_share` p, round(p · prompts_per_step) prompts of each batch come from `num_replay_items` items of
    earlier rounds, in a permuted stream of their own. They take the place of fresh ones, so an epoch (one pass over the
    phase's own items) takes more steps. Without earlier items the whole batch is fresh.

    Raises `ValueError` if there are no items to learn from.
    """

    num_items: int
    prompts_per_step: int
    seed: int
    epochs: int
    max_steps: int | None = None
    num_replay_items: int = 0
    replay_share: float = 0.0

    def __post_init__(self) -> None:
        if self.num_items < 1:
            raise ValueError("a training phase has no items to draw prompts from")
        assert self.num_replay_items >= 0, self.num_replay_items
        assert 0 <= self.replay_share < 1, self.replay_share

    @property
    def replayed_per_step(self) -> int:
        if self.num_replay_items == 0:
            return 0
        return min(int(self.replay_share * self.prompts_per_step + 0.5), self.prompts_per_step - 1)

    @property
    def fresh_per_step(self) -> int:
        return self.prompts_per_step - self.replayed_per_step

    @property
    def num_steps(self) -> int:
        return num_steps(
            self.num_items, epochs=self.epochs, prompts_per_step=self.fresh_per_step, max_steps=self.max_steps
        )

    def picks(self, step: int) -> tuple[Pick, ...]:
        """The prompts of `step` (from 0), fresh ones first. Steps past the last one continue the stream."""
        assert step >= 0, step
        fresh = _stream(self.num_items, step * self.fresh_per_step, self.fresh_per_step, self.seed, "fresh")
        replayed = _stream(
            self.num_replay_items, step * self.replayed_per_step, self.replayed_per_step, self.seed, "replay"
        )
        return tuple(Pick(i, replayed=False) for i in fresh) + tuple(Pick(i, replayed=True) for i in replayed)


def _stream(n: int, start: int, count: int, seed: int, label: str) -> list[int]:
    """Items start..start+count of the endless stream of permutations of n items."""
    out: list[int] = []
    while len(out) < count:
        epoch, offset = divmod(start + len(out), n)
        order = _order(n, derive_seed(seed, label, epoch))
        out += order[offset : offset + count - len(out)]
    return out


@functools.lru_cache(maxsize=4)  # the steps of an epoch share it; a million items take seconds to permute
def _order(n: int, seed: int) -> tuple[int, ...]:
    return tuple(permutation(n, seed))
