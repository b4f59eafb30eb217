"""How many steps each phase of a run will take, for the estimate of the time left."""

from collections.abc import Mapping

from seif_nemo.data.sampler import num_steps
from seif_nemo.evolution.material import Material, Settings
from seif_nemo.observability.progress import PlannedPhase
from seif_nemo.types.records import Phase


def plan_run(settings: Settings, material: Material, *, known: Mapping[tuple[int, Phase], int]) -> list[PlannedPhase]:
    """All phases of all rounds. A Follower phase that is not in `known` is taken to get one instruction per seed."""
    num_tasks = len(material.seeds) * settings.evolution.samples_per_seed
    plan = [PlannedPhase(0, Phase.EVALUATION, 1)]
    for round in range(1, settings.evolution.rounds + 1):
        for phase in Phase:
            if phase is Phase.INSTRUCTOR or phase is Phase.FOLLOWER:
                training = settings.training(phase)
                steps = num_steps(
                    len(material.seeds) if phase is Phase.INSTRUCTOR else num_tasks,
                    epochs=training.epochs_in(round),
                    prompts_per_step=training.prompts_per_step,
                    max_steps=training.max_steps,
                )
            elif phase is Phase.SYNTHESIS:
                steps = -(-num_tasks // settings.evolution.synthesis_batch)
            else:
                steps = 1
            plan.append(PlannedPhase(round, phase, known.get((round, phase), steps)))
    return plan
