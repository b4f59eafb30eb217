import pytest
from omegaconf import OmegaConf

from seif_nemo.cli.compose import compose_config, config_keys
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
