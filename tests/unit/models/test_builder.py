from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seif_nemo.models.architecture import Architecture, Experts
from seif_nemo.models.builder import (
    check_division,
    chunk_layers,
    inverse_frequencies,
    layer_counts,
    padded_vocab_size,
    transformer_config,
    with_layer_counts,
)
from seif_nemo.models.rope import Llama3Rope
from seif_nemo.parallel.topology import Topology
from tests.unit.topologies import make_topology

SIZES: dict[str, Any] = {
    "family": "qwen2",
    "num_layers": 6,
    "hidden_size": 32,
    "ffn_hidden_size": 48,
    "num_heads": 8,
    "num_kv_heads": 2,
    "head_dim": 4,
    "vocab_size": 99,
    "max_positions": 64,
    "tied_embeddings": False,
    "qkv_bias": True,
    "qk_norm": False,
    "norm_eps": 1e-6,
    "rope_theta": 100.0,
    "rope_scaling": None,
    "eos_ids": (),
}


def _arch(**changes: Any) -> Architecture:
    return Architecture(**(SIZES | changes))


def _topology(
    tensor: int,
    pipeline: int,
    virtual: int = 1,
    layout: tuple[int, ...] | None = None,
    *,
    data: int = 1,
    expert: int = 1,
    expert_tensor: int | None = None,
    sequence: bool = False,
) -> Topology:
    return make_topology(
        world_size=tensor * pipeline * data,
        tensor=tensor,
        pipeline=pipeline,
        data=data,
        sequence=sequence,
        virtual=virtual,
        pipeline_layout=layout,
        expert=expert,
        expert_tensor=expert_tensor or tensor,
    )


@pytest.mark.parametrize(
    "vocab, tensor, padded",
    [(99, 1, 104), (99, 8, 104), (104, 4, 104), (99, 3, 120), (99, 16, 112), (151936, 8, 151936)],
)
def test_vocabulary_is_padded_alike_for_every_usual_tensor_size(vocab: int, tensor: int, padded: int) -> None:
    assert padded_vocab_size(_arch(vocab_size=vocab), tensor) == padded


@given(layers=st.integers(1, 80), pipeline=st.integers(1, 16), virtual=st.integers(1, 3))
def test_chunks_hold_every_layer_once_in_order(layers: int, pipeline: int, virtual: int) -> None:
    arch, topology = _arch(num_layers=layers), _topology(1, pipeline, virtual)
    chunks = [chunk_layers(arch, topology, stage, chunk) for chunk in range(virtual) for stage in range(pipeline)]
    assert [layer for chunk in chunks for layer in chunk] == list(range(layers))
    assert {len(chunk) for chunk in chunks if chunk.stop < layers} <= {len(chunks[0])}


def test_division_of_layers_by_hand() -> None:
    assert layer_counts(_arch(num_layers=3), _topology(1, 2)) == (2, 1)
    arch, topology = _arch(num_layers=8), _topology(1, 2, 2, (1, 2, 4, 1))
    assert [list(chunk_layers(arch, topology, 0, chunk)) for chunk in range(2)] == [[0], [3, 4, 5, 6]]
    assert [list(chunk_layers(arch, topology, 1, chunk)) for chunk in range(2)] == [[1, 2], [7]]


def test_inverse_frequencies_by_hand() -> None:
    # theta 100, head size 4: 100^0 and 100^(-2/4).
    assert inverse_frequencies(_arch()).tolist() == pytest.approx([1.0, 0.1])
    stretched = _arch(rope_scaling=Llama3Rope(4.0, 1.0, 4.0, 32))
    # Wavelengths 6.28 (< 32 / 4: kept) and 62.8 (> 32: a quarter).
    assert inverse_frequencies(stretched).tolist() == pytest.approx([1.0, 0.025])


@pytest.mark.parametrize("tensor, pipeline", [(1, 1), (2, 2), (4, 3), (8, 6), (1, 4)])
def test_layouts_that_divide(tensor: int, pipeline: int) -> None:
    layers = 7 if pipeline == 4 else 6
    check_division(_arch(num_layers=layers), _topology(tensor, pipeline))


@pytest.mark.parametrize(
    "tensor, pipeline, message",
    [
        (3, 1, r"parallel\.tensor=3 does not divide num_attention_heads=8.*choose 2 or 4"),
        (16, 1, r"parallel\.tensor=16 .*choose 4 or 8"),
        (1, 4, r"parallel\.pipeline=4 cannot share out num_hidden_layers=6 .*choose 2 or 3"),
        (1, 7, r"parallel\.pipeline=7 .*choose 3 or 6"),
    ],
)
def test_sizes_that_do_not_divide_name_the_nearest(tensor: int, pipeline: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_division(_arch(), _topology(tensor, pipeline))


@pytest.mark.parametrize(
    "pipeline, virtual, layout, message",
    [
        (
            4,
            2,
            None,
            r"parallel\.pipeline=4 with parallel\.virtual_pipeline=2 cannot .*=6 .*one may be smaller\): choose 3$",
        ),
        (2, 2, None, r"choose 3, or say with parallel\.pipeline_layout how many layers each holds$"),
        (2, 5, None, r"choose parallel\.virtual_pipeline=1$"),
        (2, 1, (1, 4), r"pipeline_layout=\[1, 4\] adds up to 5, not num_hidden_layers=6: choose \[2, 4\]"),
        (2, 2, (1, 4, 2, 1), r"adds up to 8, not num_hidden_layers=6: choose \[1, 2, 2, 1\]"),
    ],
)
def test_layers_that_do_not_divide_name_the_nearest(
    pipeline: int, virtual: int, layout: tuple[int, ...] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_division(_arch(), _topology(1, pipeline, virtual, layout))


EXPERTS = Experts(count=6, per_token=2, ffn_hidden_size=12, normalised=True)


@pytest.mark.parametrize(
    "layout, experts, message",
    [
        ({"data": 2, "expert": 2}, None, r"parallel\.expert=2 needs a model with experts: choose 1"),
        ({"data": 4, "expert": 4}, EXPERTS, r"parallel\.expert=4 does not divide the 6 experts.*: choose 1 or 2"),
        (
            {"data": 16, "expert": 2, "expert_tensor": 8},
            EXPERTS,
            r"parallel\.expert_tensor=8 \(null: as parallel\.tensor\) .* size 12 of an expert: choose 4 or 6",
        ),
        ({"tensor": 2}, EXPERTS, r"parallel\.tensor=2 .* needs parallel\.sequence=true: choose that, or"),
    ],
)
def test_experts_that_cannot_be_divided(layout: dict[str, Any], experts: Experts | None, message: str) -> None:
    topology = _topology(**({"tensor": 1, "pipeline": 1} | layout))
    with pytest.raises(ValueError, match=message):
        check_division(_arch(experts=experts), topology)


def test_experts_that_divide() -> None:
    topology = _topology(2, 1, data=6, sequence=True, expert=6, expert_tensor=2)
    check_division(_arch(experts=EXPERTS), topology)
    # intermediate_size is of no layer where there are experts
    check_division(_arch(experts=EXPERTS, ffn_hidden_size=7), topology)


def test_a_dense_model_has_no_load_to_balance() -> None:
    with pytest.raises(
        ValueError, match=r"model\.router_aux_loss_coefficient=0\.1 needs a model with experts: choose 0"
    ):
        transformer_config(_arch(), _topology(1, 1), torch.float32, router_aux_loss_coefficient=0.1)


def test_a_layout_is_one_layout_however_it_was_asked_for() -> None:
    unasked, asked, other = (
        with_layer_counts(_arch(), _topology(1, 2, layout=layout)) for layout in (None, (3, 3), (2, 4))
    )
    assert unasked == asked
    assert unasked.pipeline_layout == (3, 3)
    assert unasked != other
