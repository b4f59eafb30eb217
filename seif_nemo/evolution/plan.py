"""How many steps each phase of a run will take, for the estimate of the time left."""

from collections.abc import Mapping

from seif_nemo.data.sampler import PhaseSampler
from seif_nemo.evolution.material import Material, Settings
from seif_nemo.observability.progress import PlannedPhase
from seif_nemo.types.records import Phase


def plan_run(settings: Settings, material: Material, *, known: Mapping[tuple[int, Phase], int]) -> list[PlannedPhase]:
    """All phases of all rounds. What is not in `known` is planned as if the gate kept every instruction of a round."""
    num_tasks = len(material.seeds) * settings.evolution.samples_per_seed
    plan = [PlannedPhase(0, Phase.EVALUATION, 1)]
    for round in range(1, settings.evolution.rounds + 1):
        for phase in Phase:
            if phase is Phase.INSTRUCTOR or phase is Phase.FOLLOWER:
                training = settings.training(phase)
                is_follower = phase is Phase.FOLLOWER
                steps = PhaseSampler(
                    num_items=num_tasks if is_follower else len(material.seeds),
                    prompts_per_step=training.prompts_per_step,
                    seed=0,
                    epochs=training.epochs_in(round),
                    max_steps=training.max_steps,
                    num_replay_items=(round - 1) * num_tasks if is_follower else 0,
                    replay_share=settings.algorithm.replay_share,
                ).num_steps
            elif phase is Phase.SYNTHESIS:
                steps = -(-num_tasks // settings.evolution.synthesis_batch)
            else:
                steps = 1
            plan.append(PlannedPhase(round, phase, known.get((round, phase), steps)))
    return plan
