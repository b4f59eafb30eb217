"""DAPO's dynamic sampling: which groups of which draws a step learns from."""

from types import SimpleNamespace

import numpy as np

from seif_nemo.config.algorithm import AlgorithmConfig, RoleTrainingConfig
from seif_nemo.data.sampler import PhaseSampler
from seif_nemo.evolution.grpo import sample_step
from seif_nemo.evolution.rewarded import RewardedRollout
from seif_nemo.evolution.training_phases import draw_picks
from seif_nemo.types.records import Phase
from seif_nemo.types.rollouts import FinishReason, Rollout


def context_with(draws):
    algorithm = AlgorithmConfig(dynamic_sampling_draws=draws)
    training = RoleTrainingConfig(prompts_per_step=3, mini_batches=1)
    generation = SimpleNamespace(max_new_tokens=8)
    settings = SimpleNamespace(algorithm=algorithm, generation=generation, training=lambda phase: training)
    return SimpleNamespace(settings=settings)


def rollouts(draw, *rewards_of_groups):
    """Two answers per group; their texts say draw and group."""
    ids, logprobs = np.array([1]), np.array([-1.0], np.float32)
    return [
        RewardedRollout(
            Rollout(ids, ids, logprobs, f"{draw}.{group}", FinishReason.STOP, "follower@0"), group, reward, {}
        )
        for group, rewards in enumerate(rewards_of_groups)
        for reward in rewards
    ]


SAME, UNEQUAL = (1.0, 1.0), (1.0, 0.0)
DRAWS = [
    rollouts(0, UNEQUAL, SAME, SAME),
    rollouts(1, SAME, UNEQUAL, SAME),
    rollouts(2, UNEQUAL, UNEQUAL, UNEQUAL),
]


def drawn(draws):
    asked = []

    def sample(step, draw):
        asked.append((step, draw))
        return lambda: (list(DRAWS[draw]), {"reward/mean": float(draw)})

    rewarded, values = sample_step(context_with(draws), Phase.FOLLOWER, 7, sample)()
    return asked, [(item.group, item.rollout.text) for item in rewarded[::2]], values


def test_one_draw_keeps_what_it_has():
    asked, groups, values = drawn(1)
    assert asked == [(7, 0)]
    assert groups == [(0, "0.0"), (1, "0.1"), (2, "0.2")]
    assert values == {"reward/mean": 0.0}


def test_more_draws_fill_up_to_the_prompts_of_a_step_and_no_further():
    asked, groups, values = drawn(9)
    assert asked == [(7, 0), (7, 1), (7, 2)]
    assert groups == [(0, "0.0"), (1, "0.1"), (2, "0.2"), (3, "1.1"), (4, "2.0")]
    left_out = {"draw_1/groups_left_out": 2.0, "draw_2/groups_left_out": 2.0}
    assert values == {"reward/mean": 0.0, "draw_1/reward/mean": 1.0, "draw_2/reward/mean": 2.0} | left_out


def test_the_number_of_draws_is_bounded():
    asked, groups, _ = drawn(2)
    assert asked == [(7, 0), (7, 1)]
    assert groups[3:] == [(3, "1.1")]


def test_no_draw_of_any_step_has_the_prompts_of_another():
    sampler = PhaseSampler(num_items=1000, prompts_per_step=5, seed=3, epochs=1, max_steps=4)
    picks = [draw_picks(context_with(3), sampler, step, draw) for step in range(4) for draw in range(3)]
    assert len({pick.index for each in picks for pick in each}) == 4 * 3 * 5
    assert picks[0] == sampler.picks(0)
