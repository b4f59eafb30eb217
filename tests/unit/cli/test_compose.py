import pytest
from omegaconf import OmegaConf

from seif_nemo.cli.compose import CONF_DIR, compose_config, config_keys
from seif_nemo.cli.main import main
from seif_nemo.config.algorithm import InstructorRewardConfig
from seif_nemo.config.model import Dtype
from seif_nemo.evolution.run_directory import flatten


def test_experiments_change_only_what_they_name():
    config = compose_config(["experiment=quickstart", "run.seed=7"])
    assert (config.run.name, config.run.seed, config.model.dtype) == ("quickstart", 7, Dtype.float32)
    assert config.algorithm.dual_clip == 3.0  # the dataclass's own default
    assert [config.algorithm.follower.epochs_in(round) for round in (1, 2, 3, 9)] == [3, 1, 1, 1]


def test_the_papers_experiment_has_the_papers_values():
    config = compose_config(["experiment=seif_paper", "model.path=base", "data.seeds=seeds.txt"])
    assert config.roles.instructor_templates == ["many_kinds", "few_hard"]
    assert (config.evolution.rounds, config.evolution.gate.name, config.evolution.solvability_samples) == (
        3,
        "parse_only",
        0,
    )
    assert (config.generation.temperature, config.generation.top_p, config.generation.max_new_tokens) == (1, 1, 8192)
    algorithm = config.algorithm
    assert (algorithm.clip_low, algorithm.clip_high, algorithm.dual_clip, algorithm.replay_share) == (0.2, 0.3, 3.0, 0)
    assert algorithm.instructor_reward == InstructorRewardConfig()
    assert [algorithm.follower.epochs_in(round) for round in (1, 2, 3)] == [3, 1, 1]
    assert [algorithm.instructor.epochs_in(round) for round in (1, 2, 3)] == [1, 1, 1]
    for role in (algorithm.instructor, algorithm.follower):
        assert (role.group_size, role.prompts_per_step, role.mini_batches) == (5, 384, 4)
        assert (role.kl_coefficient, role.optimizer.learning_rate, role.optimizer.weight_decay) == (0.01, 1e-6, 0.01)
    reward = config.reward
    assert (reward.answers_per_instruction, reward.model_filter) == (1, True)
    answered = "<think>\nFour words.\n</think>\n\n<answer>Be\nbrief.</answer>\n"
    assert reward.accepts_format(answered)
    assert not reward.accepts_format(answered + "And more.")
    assert not reward.accepts_format("<answer>Be brief.</answer>")
    assert not reward.accepts_format("<think>Four words.</think> Be brief.")


RECIPES = {  # advantage, loss, mean, clips, KL estimator, in the reward, the Follower's coefficient, draws
    "grpo": ("grpo", "clip", "sequence", 0.2, 0.2, "k3", False, 0.04, 1),
    "dr_grpo": ("dr_grpo", "clip", "constant", 0.2, 0.2, "k3", False, 0.0, 1),
    "dapo": ("grpo", "clip", "token", 0.2, 0.28, "k3", False, 0.0, 4),
    "gspo": ("grpo", "gspo", "sequence", 3e-4, 4e-4, "k3", False, 0.0, 1),
    "cispo": ("grpo", "cispo", "token", 1.0, 0.28, "k3", False, 0.0, 1),
    "rloo": ("rloo", "clip", "sequence", 0.2, 0.3, "k1", True, 0.01, 1),
    "ppo": ("gae", "clip", "token", 0.2, 0.2, "k1", True, 0.01, 1),
    "reinforce_pp": ("reinforce_pp", "clip", "token", 0.2, 0.2, "k1", True, 0.01, 1),
    "reinforce_pp_baseline": ("reinforce_pp_baseline", "clip", "token", 0.2, 0.2, "k2", False, 0.01, 1),
}


def test_recipes_are_their_papers_values():
    assert sorted(RECIPES) == sorted(path.stem for path in (CONF_DIR / "recipe").glob("*.yaml"))
    for name, expected in RECIPES.items():
        found = compose_config([f"recipe={name}", "model.path=base", "data.seeds=seeds.txt"]).algorithm
        assert found.follower.kl_coefficient == found.instructor.kl_coefficient
        names = (found.advantage.name, found.policy_loss.name, found.loss_mean.name)
        kl = (found.kl_estimator.name, found.kl_in_reward, found.follower.kl_coefficient)
        assert (*names, found.clip_low, found.clip_high, *kl, found.dynamic_sampling_draws) == expected, name


def test_ppo_in_the_tiny_world_is_the_quickstart_with_the_recipe_and_a_critic():
    ppo = compose_config(["experiment=tiny_ppo"]).algorithm
    quickstart = compose_config(["experiment=quickstart", "recipe=ppo"]).algorithm
    assert ppo.critic != quickstart.critic
    assert (ppo.kl_in_reward, ppo.kl_estimator.name) == (False, "k3")
    ppo.critic, ppo.kl_in_reward, ppo.kl_estimator = quickstart.critic, True, quickstart.kl_estimator
    assert ppo == quickstart
    assert (ppo.critic.gamma, ppo.critic.gae_lambda, ppo.critic.value_clip) == (1.0, 0.95, 0.2)


def test_a_recipe_goes_over_an_experiments_algorithm_and_under_the_command_line():
    algorithm = compose_config(["experiment=quickstart", "recipe=dapo", "algorithm.clip_low=0.1"]).algorithm
    assert (algorithm.clip_low, algorithm.clip_high, algorithm.micro_batch_tokens) == (0.1, 0.28, 2048)
    with pytest.raises(ValueError, match=r"overlong_buffer_tokens=90000 must be at most generation\.max_new_tokens="):
        compose_config(["experiment=quickstart", "algorithm.overlong_buffer_tokens=90000"])


@pytest.mark.parametrize(
    "arm, changed",
    [
        ("paper", {"reward.answers_per_instruction": 4}),
        ("band", {"reward.answers_per_instruction": 4, "algorithm.instructor_reward.kind": "band"}),
        ("variance", {"reward.answers_per_instruction": 4, "algorithm.instructor_reward.kind": "variance"}),
        (
            "diversity",
            {
                "reward.answers_per_instruction": 4,
                "algorithm.instructor_reward.kind": "band",
                "algorithm.instructor_reward.diversity_coefficient": 1.0,
            },
        ),
        (
            "solvable",
            {
                "reward.answers_per_instruction": 4,
                "algorithm.instructor_reward.kind": "band",
                "algorithm.instructor_reward.diversity_coefficient": 1.0,
                "evolution.solvability_samples": 4,
            },
        ),
        ("no_gate", {"reward.answers_per_instruction": 4, "evolution.gate": "parse_only"}),
        ("static", {"reward.answers_per_instruction": 4, "algorithm.instructor.epochs": [0]}),
    ],
)
def test_an_arm_of_the_ablation_differs_from_the_quickstart_in_what_it_names(arm, changed):
    def flat(experiment):
        config = compose_config([f"experiment={experiment}"])
        return flatten(OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True))

    quickstart, tiny = flat("quickstart"), flat(f"tiny_{arm}")
    differing = {key: value for key, value in tiny.items() if value != quickstart[key]}
    assert differing == {"run.name": f"tiny_{arm}", **changed}


@pytest.mark.parametrize(
    "override, message",
    [
        ("model.pth=x", r"there is no key 'model\.pth'; did you mean 'model\.path'"),
        ("parallel.tensor=two", r"parallel\.tensor: Value 'two'"),
        ("parallel.tensor=0", r"parallel\.tensor=0 must be at least 1"),
        ("model.dtype=fp8", r"model\.dtype: Invalid value 'fp8', expected one of \[float32, bfloat16\]"),
        ("experiment=nope", r"experiment/nope"),
        ("algorithm.follower.group_size=1", r"group_size=1 must be at least 2"),
        ("reward.required_format='('", r"reward\.required_format='\(' is no regular expression"),
        ("generation.temperature=0", r"generation\.temperature=0(\.0)? must be positive"),
    ],
)
def test_a_wrong_override_is_one_line_that_names_the_key(override, message):
    with pytest.raises(ValueError, match=message) as caught:
        compose_config(["experiment=quickstart", override] if not override.startswith("exp") else [override])
    assert "\n" not in str(caught.value)


def test_a_missing_value_is_named():
    with pytest.raises(ValueError, match=r"model\.path"):
        compose_config(["data.seeds=seeds.txt"])


def test_every_key_is_known():
    assert {"run.seed", "algorithm.instructor.optimizer.learning_rate", "data.seeds"} <= set(config_keys())


def test_an_unknown_command_suggests_the_nearest(capsys):
    assert main(["evolv"]) == 2
    assert "did you mean 'evolve'?" in capsys.readouterr().err


def test_help_lists_experiments_and_every_key_with_its_default(capsys):
    assert main(["evolve", "--help"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert any(line.startswith("experiments: quickstart, seif_paper, tiny_band, ") for line in lines)
    assert {"run.seed=0", "run.deterministic=true", "model.path=???", "data.heldout=null"} <= set(lines)
    assert "algorithm.follower.epochs=[3, 1, 1]" in lines
