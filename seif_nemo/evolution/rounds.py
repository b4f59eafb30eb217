"""SEIF: an Instructor that writes ever harder instructions and a Follower that learns to follow them, in turns.

For round T, with the evaluator E_T = the Follower of round T-1 (the base model for T = 1):

1. probe, train the Instructor with reward 1 − A(x, E_T(x)), probe again;
2. synthesise q_T: the trained Instructor writes constraints for every seed, the gate keeps what is sound;
3. train the Follower on q_T with reward A(x, y);
4. evaluate the Follower on the held-out prompts.

Source: arXiv 2605.07465, section "Method". Every call below skips what the ledger says is finished.
"""

from seif_nemo.evolution.context import Context
from seif_nemo.evolution.evaluation import evaluate, probe
from seif_nemo.evolution.export import export_follower
from seif_nemo.evolution.recovery import recover
from seif_nemo.evolution.residents import begin_round
from seif_nemo.evolution.synthesis import synthesise
from seif_nemo.evolution.training_phases import train_follower, train_instructor
from seif_nemo.observability.timers import during
from seif_nemo.parallel.lost_ranks import naming_lost_ranks
from seif_nemo.types.records import Phase


def evolve(context: Context) -> None:
    """Run all rounds that the configuration asks for, from where the ledger stands."""
    with naming_lost_ranks(context.topology, lambda error: where(context, error)):
        try:
            _evolve(context)
        except Exception:
            context.saver.abandon()  # a step before the error may still be on its way to disk
            raise
        finally:
            context.reward.abandon()  # nothing is asked after an error or an interrupt


def where(context: Context, error: BaseException) -> str:
    """In which part of which unit of work an error came."""
    last = next(reversed(list(context.ledger)), None)
    part = during(error) or "no timed part"
    if last is None:
        return f"{part}, before the first unit was finished"
    key = last.key
    return f"{part}, after round {key.round} {key.phase.value} step {key.step}"


def _evolve(context: Context) -> None:
    recover(context)
    evaluate(context, round=0)
    for round in range(1, context.settings.evolution.rounds + 1):
        if context.ledger.is_done(round, Phase.EVALUATION):
            continue
        begin_round(context, round)
        probe(context, round, Phase.PROBE_BEFORE)
        train_instructor(context, round)
        probe(context, round, Phase.PROBE_AFTER)
        synthesise(context, round)
        train_follower(context, round)
        export_follower(context, round)
        evaluate(context, round)
