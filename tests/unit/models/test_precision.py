import itertools
from types import SimpleNamespace

import pytest
import torch
from megatron.core.transformer.transformer_config import TransformerConfig

from seif_nemo.config.fp8 import AmaxAlgorithm, Fp8Config, Fp8Recipe
from seif_nemo.config.model import Precision
from seif_nemo.models.builder import transformer_config
from seif_nemo.models.fp8_layers import assert_in_fp8
from seif_nemo.models.precision import (
    Machine,
    check_layers,
    check_machine,
    plan_fp8,
    probe_machine,
    row_multiple,
    transformer_options,
)
from tests.dist.tiny_gpt import TINY
from tests.unit.topologies import make_topology

NEW = (2, 9)
MACHINES = {
    "cpu": Machine(None),
    "ampere": Machine((8, 0), (12, 9), NEW),
    "ada": Machine((8, 9), (12, 9), NEW),
    "hopper": Machine((9, 0), (12, 9), NEW),
    "hopper, old cuda": Machine((9, 0), (12, 6), NEW),
    "hopper, no te": Machine((9, 0), (12, 9), None),
    "hopper, te 2.1": Machine((9, 0), (12, 9), (2, 1)),
    "hopper, te 1.7": Machine((9, 0), (12, 9), (1, 7)),
    "blackwell": Machine((10, 0), (12, 9), NEW),
    "blackwell, te refuses": Machine(
        (10, 0), (12, 9), NEW, ((Fp8Recipe.blockwise, "FP8 block scaled GEMM requires Hopper"),)
    ),
    "rtx blackwell": Machine((12, 0), (12, 9), NEW),
}
# What is chosen instead, "" where the recipe runs: delayed, tensorwise, blockwise, mxfp8.
EXPECTED = {
    "cpu": ["cpu"] * 4,
    "ampere": ["bf16"] * 4,
    "ada": ["", "", "tensorwise", "tensorwise"],
    "hopper": ["", "", "", "blockwise"],
    "hopper, old cuda": ["", "", "tensorwise", "tensorwise"],
    "hopper, no te": ["bf16"] * 4,
    "hopper, te 2.1": ["", "delayed", "delayed", "delayed"],
    "hopper, te 1.7": ["bf16"] * 4,
    "blackwell": ["", "", "", ""],
    "blackwell, te refuses": ["", "", "mxfp8", ""],
    "rtx blackwell": ["", "", "", "blockwise"],
}


@pytest.mark.parametrize(("name", "precision"), [*itertools.product(MACHINES, [None, *Precision])])
def test_every_precision_recipe_and_machine_runs_or_is_refused(name: str, precision: Precision | None):
    for recipe, choice in zip(Fp8Recipe, EXPECTED[name], strict=True):
        config = Fp8Config(recipe=recipe)
        if precision is None or not precision.is_fp8 or precision.is_emulated or not choice:
            check_machine(precision, config, MACHINES[name])
            continue
        with pytest.raises(ValueError) as caught:
            check_machine(precision, config, MACHINES[name])
        text = str(caught.value)
        assert text.startswith(f"model.precision={precision.name} with fp8.recipe={recipe.name} ")
        if choice == "cpu":
            choice = "fp8_emulated" if precision is Precision.fp8_hybrid else "fp8_emulated_e4m3"
        assert text.endswith(
            f": choose {'model.precision' if choice.startswith(('bf', 'fp')) else 'fp8.recipe'}={choice}"
        )
        assert "\n" not in text


def test_a_refusal_says_what_is_missing():
    def reason(recipe: Fp8Recipe, machine: str) -> str:
        with pytest.raises(ValueError) as caught:
            check_machine(Precision.fp8_e4m3, Fp8Config(recipe=recipe), MACHINES[machine])
        return str(caught.value)

    assert "needs compute capability 10.0, and this GPU has 9.0" in reason(Fp8Recipe.mxfp8, "hopper")
    assert "needs compute capability below 12.0" in reason(Fp8Recipe.mxfp8, "rtx blackwell")
    assert "needs Transformer Engine, which is not installed" in reason(Fp8Recipe.delayed, "hopper, no te")
    assert "needs Transformer Engine 2.3, and 2.1 is installed" in reason(Fp8Recipe.blockwise, "hopper, te 2.1")
    assert "needs CUDA 12.9, and torch was built with 12.6" in reason(Fp8Recipe.blockwise, "hopper, old cuda")
    assert "(FP8 block scaled GEMM requires Hopper)" in reason(Fp8Recipe.blockwise, "blackwell, te refuses")


def test_this_machine():
    assert probe_machine(torch.device("cpu")) == Machine(None)


def config(precision: Precision, fp8: Fp8Config) -> TransformerConfig:
    return transformer_config(TINY, make_topology(), torch.bfloat16, fp8=plan_fp8(precision, fp8))


def test_what_megatron_is_told():
    plain = config(Precision.bf16, Fp8Config())
    assert (plain.fp8, row_multiple(plain)) == (None, 1)
    emulated = config(Precision.fp8_emulated, Fp8Config())
    assert (emulated.fp8, row_multiple(emulated)) == (None, 1)
    for recipe in Fp8Recipe:
        told = config(Precision.fp8_hybrid, Fp8Config(recipe=recipe))
        assert (told.fp8, told.fp8_recipe, told.fp8_param, told.first_last_layers_bf16) == (
            "hybrid",
            recipe.value,
            False,
            False,
        )
        assert row_multiple(told) == (32 if recipe is Fp8Recipe.mxfp8 else 16)
    told = config(Precision.fp8_e4m3, Fp8Config(first_last_bf16=1))
    assert (told.fp8, told.first_last_layers_bf16) == ("e4m3", True)
    assert (told.num_layers_at_start_in_bf16, told.num_layers_at_end_in_bf16) == (1, 1)
    delayed = Fp8Config(
        recipe=Fp8Recipe.delayed, margin=2, amax_history_length=16, amax_algorithm=AmaxAlgorithm.most_recent
    )
    told = config(Precision.fp8_hybrid, delayed)
    assert (told.fp8_margin, told.fp8_amax_history_len, told.fp8_amax_compute_algo) == (2, 16, "most_recent")


@pytest.mark.parametrize("precision", [p for p in Precision if p.is_fp8])
def test_some_layer_must_be_left_for_fp8(precision: Precision):
    def check(count: int, layers: int, stages: int = 1) -> None:
        plan = plan_fp8(precision, Fp8Config(first_last_bf16=count))
        assert plan is not None
        check_layers(plan, layers, stages)

    check(1, 3)
    check(0, 1)
    for count, layers, choice in ((2, 4, 1), (1, 2, 0), (9, 8, 3)):
        with pytest.raises(
            ValueError, match=rf"^fp8\.first_last_bf16={count} .*num_hidden_layers={layers}: choose {choice}$"
        ):
            check(count, layers)
    if precision.is_emulated:
        check(3, 8, stages=4)
    else:  # Megatron-core allows no more than one stage has
        assert transformer_options(plan_fp8(precision, Fp8Config(first_last_bf16=2)))["num_layers_at_end_in_bf16"] == 2
        with pytest.raises(ValueError, match=r"choose 2$"):
            check(3, 8, stages=4)


def test_a_layer_that_did_not_compute_in_fp8_is_named():
    on = SimpleNamespace(fp8=True, fp8_initialized=True)
    assert_in_fp8([("layer 1, mlp.linear_fc1", on)])
    for off in (SimpleNamespace(fp8=False, fp8_initialized=False), SimpleNamespace(fp8=True, fp8_initialized=False)):
        with pytest.raises(RuntimeError, match=r"asked for, but layer 2, mlp\.linear_fc2 computed without it"):
            assert_in_fp8([("layer 1, mlp.linear_fc1", on), ("layer 2, mlp.linear_fc2", off)])
    with pytest.raises(RuntimeError, match="no linear layer of this pipeline stage"):
        assert_in_fp8([])
