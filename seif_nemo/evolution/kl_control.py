"""The KL coefficient of a step, from what the steps of the same phase before it have measured."""

import math
from collections.abc import Iterable, Mapping

from seif_nemo.algorithms.adaptive_kl import adapted_coefficient
from seif_nemo.evolution.changed_files import ChangedFileError
from seif_nemo.evolution.context import Context
from seif_nemo.observability.metrics import read_metrics
from seif_nemo.parallel.collectives import broadcast_float
from seif_nemo.types.records import UnitKey


def kl_coefficient(context: Context, key: UnitKey) -> float:
    """`kl_coefficient` of the role or, with `algorithm.adaptive_kl`, what the controller makes of it. Collective.

    It is computed from metrics.jsonl anew in each step, so a resumed run has the same. Raises ChangedFileError on
    every rank where the file lacks a step.
    """
    coefficient = context.settings.training(key.phase).kl_coefficient
    adaptive = context.settings.algorithm.adaptive_kl
    if adaptive.target is None:
        return coefficient
    if context.is_main:
        path = context.paths.metrics
        earlier = {
            metrics.key.step: metrics.values
            for metrics in (read_metrics(path) if path.exists() else [])
            if (metrics.key.round, metrics.key.phase) == (key.round, key.phase) and metrics.key.step < key.step
        }
        steps = [earlier[number] for number in sorted(earlier)]
        coefficient = fold(coefficient, steps, target=adaptive.target, horizon=adaptive.horizon)
        if len(earlier) != key.step:
            coefficient = math.nan
    coefficient = broadcast_float(coefficient, context.topology)
    if math.isnan(coefficient):
        raise ChangedFileError(
            f"{context.paths.metrics} lacks steps of round {key.round}, {key.phase.value}: algorithm.adaptive_kl needs "
            "them all"
        )
    return coefficient


def fold(coefficient: float, steps: Iterable[Mapping[str, float]], *, target: float, horizon: float) -> float:
    """The coefficient after these steps' metrics. A step without an update of the policy changes nothing."""
    for values in steps:
        if values.get("train/num_updates", 0) > 0:
            coefficient = adapted_coefficient(
                coefficient,
                values["train/kl"],
                target=target,
                horizon=horizon,
                num_responses=int(values["train/num_samples"]),
            )
    return coefficient
