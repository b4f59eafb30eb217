"""Megatron-core's GPTModel from an architecture: one pipeline stage, this rank's shard."""

import importlib.util
import math
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.backends import BackendSpecProvider
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_mlp_module_spec_for_backend
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules
from torch import Tensor

from seif_nemo.config.parallel import Recompute
from seif_nemo.models.architecture import Architecture
from seif_nemo.models.cpu_modules import TorchSpecProvider
from seif_nemo.models.head import gives_hidden
from seif_nemo.parallel.topology import Topology

PADDED_LOGIT = -1e9  # finite, so that p * log p of a padding column is 0 and a low temperature makes no infinity
_VOCAB_MULTIPLE = 8


def build_gpt(
    arch: Architecture,
    topology: Topology,
    *,
    dtype: torch.dtype,
    max_sequence_length: int,
    recompute: Recompute = Recompute.none,
) -> GPTModel:
    """This rank's part of the model on `topology.device`, in training mode, with NaN for weights until they are loaded.

    Forward takes token ids and position ids [batch, sequence] and None for the attention mask: attention is causal, so
    batches are padded on the right. (Transformer Engine would pass over another mask without a word.) It gives logits
    [batch, sequence, vocabulary / tensor] in `dtype` on the last stage, or losses [batch, sequence] if given labels.
    Columns beyond `arch.vocab_size` hold `PADDED_LOGIT`; no gradient flows into them.
    Raises ValueError where the heads, the feed-forward size or the layers do not divide, naming the key to change.
    """
    config = transformer_config(arch, topology, dtype, recompute)
    block_spec: Any = _block_spec(config, _backend(topology))
    model = GPTModel(
        config,
        block_spec,
        vocab_size=padded_vocab_size(arch, topology.tensor),
        max_sequence_length=max_sequence_length,
        pre_process=topology.is_first_stage,
        post_process=topology.is_last_stage,
        parallel_output=True,
        share_embeddings_and_output_weights=arch.tied_embeddings,
        position_embedding_type="rope",
        rotary_base=round(arch.rope_theta),
    )
    model.rotary_pos_emb.inv_freq = inverse_frequencies(arch).to(topology.device)
    if topology.is_last_stage:
        _hide_padding(model, arch, topology)
    return model.to(topology.device)


def transformer_config(
    arch: Architecture, topology: Topology, dtype: torch.dtype, recompute: Recompute = Recompute.none
) -> TransformerConfig:
    """Megatron-core's configuration of this model. Raises ValueError as `build_gpt` does."""
    check_division(arch, topology)
    on_cuda = topology.device.type == "cuda"
    first_stages = len(stage_layers(arch, topology.pipeline, 0))
    last_stage = len(stage_layers(arch, topology.pipeline, topology.pipeline - 1))
    return TransformerConfig(
        num_layers=arch.num_layers,
        num_layers_in_last_pipeline_stage=None if last_stage == first_stages else last_stage,
        hidden_size=arch.hidden_size,
        ffn_hidden_size=arch.ffn_hidden_size,
        num_attention_heads=arch.num_heads,
        num_query_groups=arch.num_kv_heads,
        kv_channels=arch.head_dim,
        normalization="RMSNorm",
        layernorm_epsilon=arch.norm_eps,
        qk_layernorm=arch.qk_norm,
        gated_linear_unit=True,
        activation_func=F.silu,
        add_bias_linear=False,
        add_qkv_bias=arch.qkv_bias,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        tensor_model_parallel_size=topology.tensor,
        pipeline_model_parallel_size=topology.pipeline,
        context_parallel_size=topology.context,
        sequence_parallel=topology.sequence,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype is torch.bfloat16,
        recompute_granularity=None if recompute is Recompute.none else recompute.value,
        recompute_method="uniform" if recompute is Recompute.full else None,
        recompute_num_layers=1 if recompute is Recompute.full else None,
        # Fused attention keeps no scores: computing it again would save nothing.
        recompute_modules=["mlp"] if _has_transformer_engine(topology) else ["core_attn", "mlp"],
        attention_softmax_in_fp32=True,
        init_method=_not_loaded,
        output_layer_init_method=_not_loaded,
        embedding_init_method=_not_loaded,
        # Fusions are compiled kernels: they need a GPU.
        bias_activation_fusion=on_cuda,
        bias_dropout_fusion=on_cuda,
        masked_softmax_fusion=False,
        gradient_accumulation_fusion=False,
    )


def padded_vocab_size(arch: Architecture, tensor: int) -> int:
    """Rows of the embedding in memory: the vocabulary, rounded up to a multiple of 8 and of `tensor`.

    It is the same for every `tensor` that divides 8, so that a checkpoint fits all of them.
    """
    multiple = math.lcm(_VOCAB_MULTIPLE, tensor)
    return math.ceil(arch.vocab_size / multiple) * multiple


def stage_layers(arch: Architecture, pipeline: int, stage: int) -> range:
    """Numbers, from 0, of the layers of one of `pipeline` stages: equal stages, the last one may be smaller."""
    per_stage = math.ceil(arch.num_layers / pipeline)
    return range(stage * per_stage, min((stage + 1) * per_stage, arch.num_layers))


def inverse_frequencies(arch: Architecture) -> Tensor:
    """Rotary inverse frequencies in radians per token, [head_dim / 2], fp32 (arXiv 2104.09864)."""
    exponent = torch.arange(0, arch.head_dim, 2, dtype=torch.int64).float() / arch.head_dim
    frequencies = 1.0 / (arch.rope_theta**exponent)
    if arch.rope_scaling is None:
        return frequencies
    return torch.tensor([arch.rope_scaling.scale(float(value)) for value in frequencies], dtype=torch.float32)


def check_division(arch: Architecture, topology: Topology) -> None:
    """Raise ValueError, with the nearest choices, where this architecture cannot be divided as the topology says."""
    sizes = {"num_attention_heads": arch.num_heads, "intermediate_size": arch.ffn_hidden_size}
    fits = [
        tensor
        for tensor in range(1, arch.num_heads + 1)
        if all(size % tensor == 0 for size in sizes.values()) and _groups_fit(arch, tensor)
    ]
    if topology.tensor not in fits:
        raise ValueError(
            f"parallel.tensor={topology.tensor} does not divide num_attention_heads={arch.num_heads}, "
            f"num_key_value_heads={arch.num_kv_heads} and intermediate_size={arch.ffn_hidden_size} of this model: "
            f"choose {_nearest(fits, topology.tensor)}"
        )
    depths = [pipeline for pipeline in range(1, arch.num_layers + 1) if stage_layers(arch, pipeline, pipeline - 1)]
    if topology.pipeline not in depths:
        raise ValueError(
            f"parallel.pipeline={topology.pipeline} cannot share out num_hidden_layers={arch.num_layers} (equal "
            f"stages, the last one may be smaller): choose {_nearest(depths, topology.pipeline)}"
        )


def _groups_fit(arch: Architecture, tensor: int) -> bool:
    return arch.num_kv_heads % tensor == 0 or tensor % arch.num_kv_heads == 0


def _nearest(choices: list[int], wanted: int) -> str:
    best = sorted(sorted(choices, key=lambda choice: (abs(choice - wanted), choice))[:2])
    return " or ".join(map(str, best))


def _has_transformer_engine(topology: Topology) -> bool:
    return topology.device.type == "cuda" and importlib.util.find_spec("transformer_engine") is not None


def _backend(topology: Topology) -> BackendSpecProvider:
    if _has_transformer_engine(topology):
        # These two lines never ran: no machine with Transformer Engine yet.
        from megatron.core.extensions.transformer_engine_spec_provider import TESpecProvider

        return TESpecProvider()
    return TorchSpecProvider()


def _block_spec(config: TransformerConfig, backend: BackendSpecProvider) -> TransformerBlockSubmodules:
    norm_linear: Any = backend.column_parallel_layer_norm_linear()
    norm: Any = backend.layer_norm(rms_norm=True)
    add_residual: Any = get_bias_dropout_add
    qk_norm = backend.layer_norm(rms_norm=True, for_qk=True) if config.qk_layernorm else IdentityOp
    layer = ModuleSpec(
        module=TransformerLayer,
        submodules=TransformerLayerSubmodules(
            self_attention=ModuleSpec(
                module=SelfAttention,
                params={"attn_mask_type": AttnMaskType.causal},
                submodules=SelfAttentionSubmodules(
                    linear_qkv=norm_linear,
                    core_attention=backend.core_attention(),
                    linear_proj=backend.row_parallel_linear(),
                    q_layernorm=qk_norm,
                    k_layernorm=qk_norm,
                ),
            ),
            self_attn_bda=add_residual,
            mlp=get_mlp_module_spec_for_backend(backend=backend),
            mlp_bda=add_residual,
        ),
    )
    return TransformerBlockSubmodules(layer_specs=[layer] * get_num_layers_to_build(config), layer_norm=norm)


def _not_loaded(weight: Tensor) -> Tensor:
    return torch.nn.init.constant_(weight, math.nan)  # a weight that no file filled must not pass for one


def _hide_padding(model: GPTModel, arch: Architecture, topology: Topology) -> None:
    padded = padded_vocab_size(arch, topology.tensor)
    per_rank = padded // topology.tensor
    mine = min(max(arch.vocab_size - topology.tensor_rank * per_rank, 0), per_rank)  # real columns of this rank
    if padded == arch.vocab_size:
        return

    def hide(layer: torch.nn.Module, _args: object, output: tuple[Tensor, Tensor | None]) -> None:
        if gives_hidden(layer):
            return
        logits = output[0]
        real = arch.vocab_size if logits.shape[-1] == padded else mine
        logits[..., real:] = PADDED_LOGIT  # in place: the product's gradient does not need its result

    model.output_layer.register_forward_hook(hide)
