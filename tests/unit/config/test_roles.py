import pytest

from seif_nemo.cli.compose import compose_config
from seif_nemo.config.roles import Projection, RolesMode

LORA = ["experiment=quickstart", "roles.mode=lora"]


def test_adapters_are_asked_for_by_peft_s_names() -> None:
    roles = compose_config([*LORA, "roles.lora.rank=4", "roles.lora.targets=[q_proj,v_proj]"]).roles
    assert roles.mode is RolesMode.lora
    assert roles.lora.targets == [Projection.q_proj, Projection.v_proj]
    assert roles.lora.scale == 8.0
    assert compose_config(LORA).roles.lora.targets == list(Projection)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([*LORA, "roles.lora.rank=0"], r"roles\.lora\.rank=0 must be at least 1"),
        ([*LORA, "roles.lora.alpha=0"], r"roles\.lora\.alpha=0\.0 must be positive"),
        ([*LORA, "roles.lora.targets=[]"], r"roles\.lora\.targets is empty: name at least one of q_proj, k_proj, "),
        ([*LORA, "roles.lora.targets=[q_proj,q_proj]"], r"roles\.lora\.targets=.* names a projection twice"),
        ([*LORA, "roles.lora.targets=[linear_qkv]"], r"expected one of \[q_proj, k_proj, v_proj, o_proj, "),
        ([*LORA[:1], "roles.lora.rank=4"], r"roles\.lora has no effect with roles\.mode=full: choose roles\.mode=lora"),
        ([*LORA[:1], "roles.mode=qlora"], r"roles\.mode: Invalid value 'qlora', expected one of \[full, lora\]"),
    ],
)
def test_what_is_no_adapter_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compose_config(overrides)


def test_the_experiment_differs_from_the_quickstart_by_its_roles_and_learning_rates() -> None:
    quickstart, lora = (compose_config([f"experiment={name}"]) for name in ("quickstart", "tiny_lora"))
    assert lora.roles.mode is RolesMode.lora
    for role in ("instructor", "follower"):
        full, adapter = (getattr(config.algorithm, role) for config in (quickstart, lora))
        assert adapter.optimizer.learning_rate >= 3 * full.optimizer.learning_rate
        adapter.optimizer.learning_rate = full.optimizer.learning_rate
    lora.roles.mode, lora.run.name = RolesMode.full, "quickstart"
    assert lora == quickstart
