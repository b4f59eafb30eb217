import pytest

from seif_nemo.cli.compose import compose_config, config_keys
from seif_nemo.cli.main import main
from seif_nemo.config.model import Dtype


def test_experiments_change_only_what_they_name():
    config = compose_config(["experiment=quickstart", "run.seed=7"])
    assert (config.run.name, config.run.seed, config.model.dtype) == ("quickstart", 7, Dtype.float32)
    assert config.algorithm.dual_clip == 3.0  # the dataclass's own default
    assert [config.algorithm.follower.epochs_in(round) for round in (1, 2, 3, 9)] == [3, 1, 1, 1]


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
    assert "experiments: quickstart" in lines
    assert {"run.seed=0", "run.deterministic=true", "model.path=???", "data.heldout=null"} <= set(lines)
    assert "algorithm.follower.epochs=[3, 1, 1]" in lines
