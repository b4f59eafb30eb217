"""Which sequences share a micro-batch, and which rank computes it: packed to a token budget, balanced by cost.

All functions are pure: every rank works out the same plan for all ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Bins = list[list[int]]  # indices of the sequences in each


@dataclass(frozen=True, slots=True)
class PackingPlan:
    """`ranks[r][m]` are the sequences in micro-batch m of rank r; the same number of micro-batches on every rank."""

    ranks: tuple[tuple[tuple[int, ...], ...], ...]
    fill: float  # tokens per position, were every micro-batch as large as the largest
    imbalance: float  # how far the dearest rank is above the mean, as a share of the mean


def first_fit_decreasing(lengths: Sequence[int], budget: int) -> Bins:
    """The longest sequences first (ties by index), each into the first bin that has room for it.

    At most 11/9 of the fewest possible bins, and one (Dósa 2007). A sequence longer than the budget gets its own bin.
    """
    bins: Bins = []
    room = np.zeros(len(lengths), dtype=np.int64)  # of as many bins as there may be
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        fitting = np.flatnonzero(room[: len(bins)] >= lengths[index])
        place = int(fitting[0]) if len(fitting) else len(bins)
        if place == len(bins):
            bins.append([])
            room[place] = budget
        bins[place].append(index)
        room[place] -= lengths[index]
    return bins


def plan_packing(
    lengths: Sequence[int], costs: Sequence[float], *, budget: int, ranks: int, multiple_of: int = 1
) -> PackingPlan:
    """As few micro-batches per rank as first-fit-decreasing needs, then levelled by cost.

    `costs` is what each sequence takes to compute (FLOPs: attention makes a long sequence dearer than two short ones
    of its length). `budget` bounds the tokens of a micro-batch; `multiple_of` their number per rank (an interleaved
    pipeline wants a multiple of its stages). Micro-batches may be empty where there are too few sequences.
    """
    packed = first_fit_decreasing(lengths, budget)
    per_rank = -(-len(packed) // (ranks * multiple_of)) * multiple_of
    number = per_rank * ranks
    bins = _levelled(lengths, costs, number, budget) or packed + [[] for _ in range(number - len(packed))]
    shares = _shared_out([sum(costs[index] for index in part) for part in bins], ranks)
    loads = [sum(costs[index] for place in share for index in bins[place]) for share in shares]
    largest = max((sum(lengths[index] for index in part) for part in bins), default=0)
    return PackingPlan(
        ranks=tuple(tuple(tuple(bins[place]) for place in share) for share in shares),
        fill=sum(lengths) / (number * largest) if largest else 1.0,
        imbalance=max(loads) / (sum(loads) / ranks) - 1 if sum(loads) else 0.0,
    )


def _levelled(lengths: Sequence[int], costs: Sequence[float], number: int, budget: int) -> Bins | None:
    """Dearest first, each into the cheapest of `number` bins that has room; None where one finds no room."""
    bins: Bins = [[] for _ in range(number)]
    room = np.full(number, budget, dtype=np.int64)
    load = np.zeros(number)
    for index in sorted(range(len(lengths)), key=lambda index: (-costs[index], index)):
        fits = (room >= lengths[index]) | (room == budget)  # a sequence beyond the budget is alone in its bin
        if not fits.any():
            return None
        place = int(np.where(fits, load, np.inf).argmin())
        bins[place].append(index)
        room[place] -= lengths[index]
        load[place] += costs[index]
    return bins


def _shared_out(costs: Sequence[float], ranks: int) -> Bins:
    """Bins for each rank, as many for one as for another: the dearest bin to the rank with the least cost so far."""
    shares: Bins = [[] for _ in range(ranks)]
    load = np.zeros(ranks)
    limit = len(costs) // ranks
    for place in sorted(range(len(costs)), key=lambda place: (-costs[place], place)):
        is_open = np.array([len(share) < limit for share in shares])
        rank = int(np.where(is_open, load, np.inf).argmin())
        shares[rank].append(place)
        load[rank] += costs[place]
    return shares
