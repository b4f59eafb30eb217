"""Megatron-core's GPTModel from an architecture: the chunks of one pipeline stage, this rank's shard of them."""

import importlib.util
import math
from dataclasses import replace
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
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules
from torch import Tensor

from seif_nemo.config.parallel import Recompute
from seif_nemo.models.architecture import Architecture, Experts
from seif_nemo.models.biased import with_bias
from seif_nemo.models.cpu_modules import TorchSpecProvider
from seif_nemo.models.experts import expert_layer
from seif_nemo.models.fp8_layers import emulate_fp8, require_fp8
from seif_nemo.models.head import gives_hidden
from seif_nemo.models.precision import Fp8Plan, check_layers, transformer_options
from seif_nemo.models.rope import plain
from seif_nemo.models.value_head import add_value_head
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
    router_aux_loss_coefficient: float = 0.0,
    with_value_head: bool = False,
    fp8: Fp8Plan | None = None,
) -> list[GPTModel]:
    """This rank's part of the model on `topology.device`, in training mode, with NaN for weights until they are loaded.

    One chunk, or `topology.virtual` of them: a token passes the first chunks of all stages, then the second ones. They
    share one configuration.

    Forward takes token ids and position ids [batch, sequence] and None for the attention mask: attention is causal, so
    batches are padded on the right. (Transformer Engine would pass over another mask without a word.) The last chunk of
    the last stage gives logits [batch, sequence, vocabulary / tensor] in `dtype`, or losses [batch, sequence] if given
    labels. Columns beyond `arch.vocab_size` hold `PADDED_LOGIT`; no gradient flows into them. `with_value_head` gives
    that chunk a value head, for a critic. `router_aux_loss_coefficient` is that of the experts' load-balancing loss
    (`models/experts.py`). `fp8`: what the linear layers of the transformer blocks multiply in (`models/precision.py`).
    Raises ValueError where the heads, the feed-forward size, the layers or the experts do not divide, naming the key to
    change.
    """
    config = transformer_config(
        arch, topology, dtype, recompute=recompute, router_aux_loss_coefficient=router_aux_loss_coefficient, fp8=fp8
    )
    backend = _backend(topology, fp8)
    modules = [
        _build_chunk(arch, topology, config, backend, chunk, max_sequence_length) for chunk in range(topology.virtual)
    ]
    if with_value_head and is_last_chunk(topology, topology.virtual - 1):
        add_value_head(modules[-1])
    if fp8 is not None:
        for module in modules:
            emulate_fp8(module, fp8, topology.device) if fp8.is_emulated else require_fp8(module)
    return modules


def _build_chunk(
    arch: Architecture,
    topology: Topology,
    config: TransformerConfig,
    backend: BackendSpecProvider,
    chunk: int,
    max_sequence_length: int,
) -> GPTModel:
    num_layers = len(chunk_layers(arch, topology, topology.pipeline_rank, chunk))
    block_spec: Any = _block_spec(config, backend, num_layers, arch)
    is_last = is_last_chunk(topology, chunk)
    model = GPTModel(
        config,
        block_spec,
        vocab_size=padded_vocab_size(arch, topology.tensor),
        max_sequence_length=max_sequence_length,
        pre_process=is_first_chunk(topology, chunk),
        post_process=is_last,
        parallel_output=True,
        share_embeddings_and_output_weights=arch.tied_embeddings,
        position_embedding_type="rope",
        rotary_base=round(arch.rope_theta),
        vp_stage=chunk if topology.virtual > 1 else None,
    )
    model.rotary_pos_emb.inv_freq = inverse_frequencies(arch).to(topology.device)
    if is_last:
        _hide_padding(model, arch, topology)
    return model.to(topology.device)


def transformer_config(
    arch: Architecture,
    topology: Topology,
    dtype: torch.dtype,
    *,
    recompute: Recompute = Recompute.none,
    router_aux_loss_coefficient: float = 0.0,
    fp8: Fp8Plan | None = None,
) -> TransformerConfig:
    """Megatron-core's configuration of this model. Raises ValueError as `build_gpt` does."""
    check_division(arch, topology)
    if fp8 is not None:
        check_layers(fp8, arch.num_layers, topology.pipeline)
    experts = arch.experts
    if experts is None and router_aux_loss_coefficient:
        raise ValueError(
            f"model.router_aux_loss_coefficient={router_aux_loss_coefficient} needs a model with experts: choose 0"
        )
    on_cuda = topology.device.type == "cuda"
    has_engine = _has_transformer_engine(topology, fp8)
    feed_forward = "mlp" if experts is None else "moe"  # as Megatron names what to recompute
    return TransformerConfig(
        num_layers=arch.num_layers,
        hidden_size=arch.hidden_size,
        ffn_hidden_size=arch.ffn_hidden_size if experts is None else experts.ffn_hidden_size,
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
        softmax_scale=softmax_scale(arch),
        hidden_dropout=0.0,
        attention_dropout=0.0,
        tensor_model_parallel_size=topology.tensor,
        pipeline_model_parallel_size=topology.pipeline,
        context_parallel_size=topology.context,
        virtual_pipeline_model_parallel_size=topology.virtual if topology.virtual > 1 else None,
        pipeline_model_parallel_layout=_megatron_layout(arch, topology) if topology.pipeline > 1 else None,
        # The interleaved schedule's other way of communicating mixes up forward and backward tensors of two stages.
        overlap_p2p_comm=topology.virtual > 1,
        batch_p2p_comm=topology.virtual == 1,
        sequence_parallel=topology.sequence,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype is torch.bfloat16,
        recompute_granularity=None if recompute is Recompute.none else recompute.value,
        recompute_method="uniform" if recompute is Recompute.full else None,
        recompute_num_layers=1 if recompute is Recompute.full else None,
        # Fused attention keeps no scores: computing it again would save nothing.
        recompute_modules=[feed_forward] if has_engine else ["core_attn", feed_forward],
        attention_softmax_in_fp32=True,
        init_method=_not_loaded,
        output_layer_init_method=_not_loaded,
        embedding_init_method=_not_loaded,
        # Fusions are compiled kernels: they need a GPU.
        bias_activation_fusion=on_cuda,
        bias_dropout_fusion=on_cuda,
        masked_softmax_fusion=False,
        gradient_accumulation_fusion=False,
        **transformer_options(fp8),
        moe_grouped_gemm=experts is not None and has_engine,
        **({} if experts is None else _expert_options(experts, topology, router_aux_loss_coefficient)),
    )


def padded_vocab_size(arch: Architecture, tensor: int) -> int:
    """Rows of the embedding in memory: the vocabulary, rounded up to a multiple of 8 and of `tensor`.

    It is the same for every `tensor` that divides 8, so that a checkpoint fits all of them.
    """
    multiple = math.lcm(_VOCAB_MULTIPLE, tensor)
    return math.ceil(arch.vocab_size / multiple) * multiple


def chunk_layers(arch: Architecture, topology: Topology, stage: int, chunk: int) -> range:
    """Numbers, from 0, of a chunk's layers. Chunk c of stage s is the (c * pipeline + s)-th that a token passes."""
    counts = layer_counts(arch, topology)
    place = chunk * topology.pipeline + stage
    first = sum(counts[:place])
    return range(first, first + counts[place])


def with_layer_counts(arch: Architecture, topology: Topology) -> Topology:
    """The topology with `pipeline_layout` written out, so that a layout is one layout however it was asked for.

    Raises ValueError as `build_gpt` does.
    """
    check_division(arch, topology)
    return replace(topology, pipeline_layout=layer_counts(arch, topology))


def layer_counts(arch: Architecture, topology: Topology) -> tuple[int, ...]:
    """Layers of every chunk, as a token passes them: those given, or equal ones of which the last may be smaller."""
    if topology.pipeline_layout is not None:
        return topology.pipeline_layout
    return _equal_counts(arch.num_layers, topology.pipeline * topology.virtual)


def is_first_chunk(topology: Topology, chunk: int) -> bool:
    """Whether this rank's chunk holds the embedding."""
    return topology.is_first_stage and chunk == 0


def is_last_chunk(topology: Topology, chunk: int) -> bool:
    """Whether this rank's chunk holds the output projection."""
    return topology.is_last_stage and chunk == topology.virtual - 1


def _equal_counts(num_layers: int, chunks: int) -> tuple[int, ...]:
    size = math.ceil(num_layers / chunks)
    return tuple(max(0, min(size, num_layers - place * size)) for place in range(chunks))


def _megatron_layout(arch: Architecture, topology: Topology) -> list[list[str]]:
    rows = [["decoder"] * count for count in layer_counts(arch, topology)]
    return [["embedding", *rows[0]], *rows[1:-1], [*rows[-1], "loss"]]


def inverse_frequencies(arch: Architecture) -> Tensor:
    """Rotary inverse frequencies in radians per token, [head_dim / 2], fp32 (arXiv 2104.09864)."""
    if arch.rope_scaling is None:
        return plain(arch.rope_theta, arch.head_dim)
    return arch.rope_scaling.frequencies(arch.rope_theta, arch.head_dim)


def softmax_scale(arch: Architecture) -> float | None:
    """What attention scores are multiplied by; None: the usual 1 / sqrt(head_dim).

    A factor on the cosines and sines of queries and keys alike is its square on the scores.
    """
    factor = 1.0 if arch.rope_scaling is None else arch.rope_scaling.attention_factor
    return None if factor == 1.0 else factor**2 / math.sqrt(arch.head_dim)


def check_division(arch: Architecture, topology: Topology) -> None:
    """Raise ValueError, with the nearest choices, where this architecture cannot be divided as the topology says."""
    sizes = {"num_attention_heads": arch.num_heads}
    if arch.experts is None:
        sizes["intermediate_size"] = arch.ffn_hidden_size
    fits = [
        tensor
        for tensor in range(1, arch.num_heads + 1)
        if all(size % tensor == 0 for size in sizes.values()) and _groups_fit(arch, tensor)
    ]
    if topology.tensor not in fits:
        names = ", ".join(f"{key}={size}" for key, size in sizes.items())
        raise ValueError(
            f"parallel.tensor={topology.tensor} does not divide {names} and num_key_value_heads={arch.num_kv_heads} of "
            f"this model: choose {_nearest(fits, topology.tensor)}"
        )
    _check_experts(arch.experts, topology)
    _check_layers(arch, topology)


def _check_layers(arch: Architecture, topology: Topology) -> None:
    layers, layout = arch.num_layers, topology.pipeline_layout
    if layout is not None:
        if sum(layout) != layers:
            raise ValueError(
                f"parallel.pipeline_layout={list(layout)} adds up to {sum(layout)}, not num_hidden_layers={layers}: "
                f"choose {_nearest_layout(layout, layers)}"
            )
        return
    fits = [chunks for chunks in range(1, layers + 1) if _equal_counts(layers, chunks)[-1]]
    if topology.pipeline * topology.virtual in fits:
        return
    depths = [chunks // topology.virtual for chunks in fits if chunks % topology.virtual == 0]
    depths = [depth for depth in depths if depth > 1 or topology.virtual == 1]
    choice = f"choose {_nearest(depths, topology.pipeline)}" if depths else "choose parallel.virtual_pipeline=1"
    if topology.pipeline * topology.virtual <= layers:
        choice += ", or say with parallel.pipeline_layout how many layers each holds"
    virtual = f" with parallel.virtual_pipeline={topology.virtual}" if topology.virtual > 1 else ""
    raise ValueError(
        f"parallel.pipeline={topology.pipeline}{virtual} cannot share out num_hidden_layers={layers} (equal parts, the "
        f"last one may be smaller): {choice}"
    )


def _nearest_layout(layout: tuple[int, ...], layers: int) -> list[int]:
    """The layout, made longer at its smallest entries or shorter at its largest ones."""
    counts = list(layout)
    if len(counts) > layers:
        return [layers]
    while sum(counts) != layers:
        largest = max(range(len(counts)), key=lambda place: (counts[place], place))
        smallest = min(range(len(counts)), key=lambda place: (counts[place], -place))
        if sum(counts) < layers:
            counts[smallest] += 1
        else:
            counts[largest] -= 1
    return counts


def _check_experts(experts: Experts | None, topology: Topology) -> None:
    if experts is None:
        if topology.expert > 1:
            raise ValueError(f"parallel.expert={topology.expert} needs a model with experts: choose 1")
        return
    blocks = topology.stage_size // topology.expert_tensor
    fits = [size for size in range(1, experts.count + 1) if experts.count % size == 0 and blocks % size == 0]
    if topology.expert not in fits:
        raise ValueError(
            f"parallel.expert={topology.expert} does not divide the {experts.count} experts of this model: choose "
            f"{_nearest(fits, topology.expert)}"
        )
    if experts.ffn_hidden_size % topology.expert_tensor:
        fits = [size for size in range(1, topology.stage_size + 1) if experts.ffn_hidden_size % size == 0]
        raise ValueError(
            f"parallel.expert_tensor={topology.expert_tensor} (null: as parallel.tensor) does not divide the size "
            f"{experts.ffn_hidden_size} of an expert: choose {_nearest(fits, topology.expert_tensor)}"
        )
    if topology.tensor > 1 and not topology.sequence:
        raise ValueError(
            f"parallel.tensor={topology.tensor} of a model with experts needs parallel.sequence=true: choose that, or "
            "parallel.tensor=1"
        )


def _expert_options(experts: Experts, topology: Topology, aux_loss_coefficient: float) -> dict[str, Any]:
    return {
        "num_moe_experts": experts.count,
        "moe_ffn_hidden_size": experts.ffn_hidden_size,
        "moe_router_topk": experts.per_token,
        "moe_router_pre_softmax": not experts.normalised,
        "moe_router_dtype": "fp32",
        "moe_router_load_balancing_type": "aux_loss" if aux_loss_coefficient else "none",
        "moe_aux_loss_coeff": aux_loss_coefficient,
        "moe_token_dispatcher_type": "alltoall",
        "expert_model_parallel_size": topology.expert,
        "expert_tensor_parallel_size": topology.expert_tensor,
    }


def _groups_fit(arch: Architecture, tensor: int) -> bool:
    return arch.num_kv_heads % tensor == 0 or tensor % arch.num_kv_heads == 0


def _nearest(choices: list[int], wanted: int) -> str:
    best = sorted(sorted(choices, key=lambda choice: (abs(choice - wanted), choice))[:2])
    return " or ".join(map(str, best))


def _has_transformer_engine(topology: Topology, fp8: Fp8Plan | None) -> bool:
    if fp8 is not None and fp8.is_emulated:  # in our own layers
        return False
    return topology.device.type == "cuda" and importlib.util.find_spec("transformer_engine") is not None


def _backend(topology: Topology, fp8: Fp8Plan | None) -> BackendSpecProvider:
    if _has_transformer_engine(topology, fp8):
        # These two lines never ran with Transformer Engine.
        from megatron.core.extensions.transformer_engine_spec_provider import TESpecProvider

        return TESpecProvider()
    return TorchSpecProvider()


def _block_spec(
    config: TransformerConfig, backend: BackendSpecProvider, num_layers: int, arch: Architecture
) -> TransformerBlockSubmodules:
    norm_linear: Any = backend.column_parallel_layer_norm_linear()
    norm: Any = backend.layer_norm(rms_norm=True)
    output: Any = backend.row_parallel_linear()
    add_residual: Any = get_bias_dropout_add
    qk_norm = backend.layer_norm(rms_norm=True, for_qk=True) if config.qk_layernorm else IdentityOp
    if config.num_moe_experts is None:
        mlp: Any = get_mlp_module_spec_for_backend(backend=backend)
        if arch.mlp_bias:
            mlp.submodules.linear_fc1 = with_bias(mlp.submodules.linear_fc1)
            mlp.submodules.linear_fc2 = with_bias(mlp.submodules.linear_fc2)
        feed_forward: dict[str, Any] = {"mlp": mlp}
    else:  # many linear layers read the norm's output: it is a module of its own
        feed_forward = {"pre_mlp_layernorm": norm, "mlp": expert_layer(backend, grouped=config.moe_grouped_gemm)}
    layer = ModuleSpec(
        module=TransformerLayer,
        submodules=TransformerLayerSubmodules(
            self_attention=ModuleSpec(
                module=SelfAttention,
                params={"attn_mask_type": AttnMaskType.causal},
                submodules=SelfAttentionSubmodules(
                    linear_qkv=norm_linear,
                    core_attention=backend.core_attention(),
                    linear_proj=with_bias(output) if arch.output_bias else output,
                    q_layernorm=qk_norm,
                    k_layernorm=qk_norm,
                ),
            ),
            self_attn_bda=add_residual,
            mlp_bda=add_residual,
            **feed_forward,
        ),
    )
    return TransformerBlockSubmodules(layer_specs=[layer] * num_layers, layer_norm=norm)


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
