from pathlib import Path

from seif_nemo.config.algorithm import AlgorithmConfig, RoleTrainingConfig
from seif_nemo.config.checkpoint import CheckpointConfig
from seif_nemo.config.evolution import EvolutionConfig
from seif_nemo.config.generation import GenerationConfig
from seif_nemo.config.reward import RewardConfig
from seif_nemo.evolution.material import Material, Settings
from seif_nemo.evolution.plan import plan_run
from seif_nemo.roles.prompts import follower_template, instructor_template
from seif_nemo.types.records import Phase, SeedQuestion


def _plan(replay_share, known):
    settings = Settings(
        seed=0,
        algorithm=AlgorithmConfig(
            replay_share=replay_share,
            instructor=RoleTrainingConfig(prompts_per_step=24, max_steps=8),
            follower=RoleTrainingConfig(epochs=[3, 1, 1], prompts_per_step=24),
        ),
        generation=GenerationConfig(),
        reward=RewardConfig(),
        evolution=EvolutionConfig(rounds=3, synthesis_batch=384),
        checkpoint=CheckpointConfig(),
        base_model=Path("base"),
    )
    material = Material(
        seeds=tuple(SeedQuestion(str(row), row) for row in range(1, 801)),
        probe_seeds=(),
        heldout=(),
        instructor_templates=(instructor_template("tiny"),),
        follower_template=follower_template("tiny"),
    )
    plan = plan_run(settings, material, known=known)
    return {(planned.round, planned.phase): planned.num_steps for planned in plan}


def test_steps_of_every_phase():
    steps = _plan(replay_share=0.0, known={})
    assert len(steps) == 1 + 3 * len(Phase)
    assert [steps[round, Phase.INSTRUCTOR] for round in (1, 2, 3)] == [8, 8, 8]  # 34 but for max_steps
    assert [steps[round, Phase.SYNTHESIS] for round in (1, 2, 3)] == [3, 3, 3]  # 800 seeds in batches of 384
    assert [steps[round, Phase.FOLLOWER] for round in (1, 2, 3)] == [100, 34, 34]  # 800 · 3 / 24, 800 / 24


def test_replay_leaves_fewer_places_for_a_rounds_own_instructions():
    steps = _plan(replay_share=0.5, known={(2, Phase.FOLLOWER): 41})
    # From round 2 on 12 of 24 prompts are replayed: 800 / 12 steps. In round 1 there is nothing to replay.
    assert [steps[round, Phase.FOLLOWER] for round in (1, 2, 3)] == [100, 41, 67]
    assert steps[2, Phase.INSTRUCTOR] == 8
