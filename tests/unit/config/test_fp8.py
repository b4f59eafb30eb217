import itertools

import pytest

from seif_nemo.cli.compose import compose_config
from seif_nemo.config.fp8 import AmaxAlgorithm, Fp8Config, Fp8Recipe
from seif_nemo.config.generation import GenerationConfig
from seif_nemo.config.model import Dtype, ModelConfig, Precision
from seif_nemo.config.parallel import ParallelConfig, Recompute
from seif_nemo.config.roles import RolesConfig, RolesMode
from seif_nemo.config.root import Config

NEEDS = {"float32": "float32", "bf16": "bfloat16", "fp8_hybrid": "bfloat16", "fp8_e4m3": "bfloat16"}


@pytest.mark.parametrize(("precision", "dtype"), [*itertools.product([None, *Precision], Dtype)])
def test_precision_and_dtype_cannot_contradict_each_other(precision: Precision | None, dtype: Dtype):
    needed = dtype.name if precision is None else NEEDS.get(precision.name, dtype.name)
    if needed == dtype.name:
        assert ModelConfig(path="m", dtype=dtype, precision=precision).uses_fp8 == (
            precision is not None and precision.name.startswith("fp8")
        )
        return
    assert precision is not None
    with pytest.raises(ValueError) as caught:
        ModelConfig(path="m", dtype=dtype, precision=precision)
    instead = "fp8_emulated" if precision.is_fp8 else "null"
    assert str(caught.value) == (
        f"model.precision={precision.name} needs model.dtype={needed}, not {dtype.name}: choose that, or "
        f"model.precision={instead}"
    )


FP8_KEYS = {
    "recipe": Fp8Recipe.tensorwise,
    "first_last_bf16": 1,
    "amax_history_length": 4,
    "amax_algorithm": AmaxAlgorithm.most_recent,
    "margin": 1,
}


@pytest.mark.parametrize(("precision", "key"), [*itertools.product([None, *Precision], FP8_KEYS)])
def test_a_key_of_fp8_without_fp8_is_refused(precision: Precision | None, key: str):
    of_delayed = key.startswith(("amax", "margin"))
    fp8 = Fp8Config(**{key: FP8_KEYS[key]}, **({"recipe": Fp8Recipe.delayed} if of_delayed else {}))
    dtype = Dtype.float32 if precision is Precision.float32 else Dtype.bfloat16
    model = ModelConfig(path="m", dtype=dtype, precision=precision)
    if model.uses_fp8:
        assert Config(model=model, fp8=fp8).fp8 == fp8
        return
    with pytest.raises(
        ValueError, match=r"^fp8\.\w+ has no effect with model\.precision=(null|float32|bf16): choose model"
    ):
        Config(model=model, fp8=fp8)


@pytest.mark.parametrize("recipe", Fp8Recipe)
def test_what_a_recipe_does_not_read_is_refused(recipe: Fp8Recipe):
    for key in ("amax_history_length", "amax_algorithm", "margin"):
        if recipe is Fp8Recipe.delayed:
            Fp8Config(recipe=recipe, **{key: FP8_KEYS[key]})
            continue
        with pytest.raises(
            ValueError, match=rf"^fp8\.{key}=.* has no effect with fp8\.recipe={recipe.name}: choose fp8"
        ):
            Fp8Config(recipe=recipe, **{key: FP8_KEYS[key]})
    if recipe is not Fp8Recipe.delayed:
        assert Fp8Config(recipe=recipe, first_last_bf16=2).first_last_bf16 == 2
        return
    with pytest.raises(ValueError, match=r"^fp8\.first_last_bf16=2 does not go with fp8\.recipe=delayed"):
        Fp8Config(recipe=recipe, first_last_bf16=2)


@pytest.mark.parametrize(
    ("precision", "recipe", "recompute"),
    [*itertools.product([p for p in Precision if p.is_fp8], Fp8Recipe, Recompute)],
)
def test_emulated_histories_do_not_survive_recomputation(precision: Precision, recipe: Fp8Recipe, recompute: Recompute):
    def build() -> Config:
        return Config(
            model=ModelConfig(path="m", precision=precision),
            fp8=Fp8Config(recipe=recipe),
            parallel=ParallelConfig(recompute=recompute),
        )

    if not (precision.is_emulated and recipe is Fp8Recipe.delayed and recompute is not Recompute.none):
        assert build().fp8.recipe is recipe
        return
    with pytest.raises(ValueError, match=rf"^parallel\.recompute={recompute.name} .*fp8\.recipe=delayed.*choose"):
        build()


@pytest.mark.parametrize("recipe", Fp8Recipe)
@pytest.mark.parametrize("key", ["tensor", "pipeline", "expert"])
def test_delayed_scales_do_not_reach_a_generation_layout_of_its_own(recipe: Fp8Recipe, key: str):
    def build(size: int | None) -> Config:
        return Config(
            model=ModelConfig(path="m", precision=Precision.fp8_hybrid),
            fp8=Fp8Config(recipe=recipe),
            parallel=ParallelConfig(**{key: 2}),
            generation=GenerationConfig(**{key: size}),
        )

    build(None)
    build(2)
    if recipe is not Fp8Recipe.delayed:
        build(4)
        return
    with pytest.raises(ValueError, match=rf"^generation\.{key}=4 .*fp8\.recipe=delayed.*: choose null, or fp8"):
        build(4)


def test_scales_that_follow_gradients_do_not_go_with_adapters():
    delayed = Fp8Config(recipe=Fp8Recipe.delayed)
    model = ModelConfig(path="m", precision=Precision.fp8_emulated)
    with pytest.raises(ValueError, match=r"^roles\.mode=lora does not go with fp8\.recipe=delayed"):
        Config(model=model, fp8=delayed, roles=RolesConfig(mode=RolesMode.lora))
    Config(model=model, fp8=delayed)
    Config(model=model, roles=RolesConfig(mode=RolesMode.lora))


def test_fp8_weights_alone_are_refused():
    with pytest.raises(ValueError, match=r"^fp8\.parameters=true is not supported: .*choose false$"):
        Fp8Config(parameters=True)


def test_the_keys_come_from_the_command_line():
    config = compose_config(["model.path=m", "data.seeds=s", "model.precision=fp8_hybrid", "fp8.recipe=mxfp8"])
    assert (config.model.precision, config.fp8.recipe) == (Precision.fp8_hybrid, Fp8Recipe.mxfp8)
    with pytest.raises(ValueError, match=r"fp8\.first_last_bf16=-1 must be at least 0"):
        compose_config(["model.path=m", "data.seeds=s", "fp8.first_last_bf16=-1"])
