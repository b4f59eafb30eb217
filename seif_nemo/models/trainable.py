"""A GPT model that learns: Megatron's DDP and distributed optimizer, with flat views of all that they hold.

Weights live in Megatron's contiguous parameter buffers; the optimizer's moments, which Megatron allocates parameter by
parameter, are re-homed into flat buffers here, so that a swap of roles is a few large copies.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.models.gpt import GPTModel
from megatron.core.optimizer import ChainedOptimizer, clip_grads, get_megatron_optimizer
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from megatron.core.tensor_parallel import param_is_not_tensor_parallel_duplicate
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.module import param_is_not_shared
from torch import Tensor

from seif_nemo.config.algorithm import OptimizerConfig
from seif_nemo.models.experts import routers
from seif_nemo.models.fp8_layers import fp8_buffers
from seif_nemo.models.offload import HostGradients, use_torch_adam
from seif_nemo.parallel.topology import Topology

MOMENTS = ("exp_avg", "exp_avg_sq")


class TrainableModel:
    """One pipeline stage of a model with its gradients and its Adam state (AdamW: decoupled weight decay).

    `modules` are the stage's chunks, as a token passes them (one, unless the pipeline is virtual), `ddps` the same with
    gradient buffers around them.

    The distributed optimizer is used at every data-parallel size, so each rank holds the moments (and, for bf16
    weights, the fp32 main parameters) of its shard only. Weight decay follows Megatron's default: none on biases and
    on parameters with one dimension (norms).
    """

    def __init__(
        self,
        modules: Sequence[GPTModel],
        config: TransformerConfig,
        optimizer_config: OptimizerConfig,
        topology: Topology,
        *,
        offload: bool = False,
    ) -> None:
        """Takes the chunks over: their parameters move into contiguous buffers. Collective.

        `offload`: moments and main parameters stay in host memory and are updated there. Raises ValueError for float32
        weights, which have no main parameters.
        """
        config.finalize_model_grads_func = finalize_model_grads
        config.variable_seq_lengths = topology.pipeline > 1  # each micro-batch has its own length
        self.modules = list(modules)
        self.config = config
        self.topology = topology
        settings = DistributedDataParallelConfig(use_distributed_optimizer=True, grad_reduce_in_fp32=True)
        self.ddps = [DistributedDataParallel(config, settings, module) for module in modules]
        on_cpu = topology.device.type == "cpu"
        self.optimizer = get_megatron_optimizer(
            _megatron_config(optimizer_config, config.params_dtype), [*self.ddps], use_gloo_process_groups=not on_cpu
        )
        if on_cpu:  # every group is a gloo group already; checkpointing asks for one by name
            for optimizer in self._chained():
                optimizer.data_parallel_group_gloo = optimizer.data_parallel_group
        self._routers = [router for module in modules for router in routers(module) if config.moe_aux_loss_coeff]
        self._max_grad_norm = optimizer_config.max_grad_norm
        self._weights_changed = False
        self._state_device = torch.device("cpu") if offload else topology.device
        self._offloaded = self._offload() if offload else None
        self._moments = [self._empty_like_shards() for _ in MOMENTS]
        self._main = self._empty_like_shards() if config.params_dtype != torch.float32 else None
        self.adopt_optimizer_state()
        self.configure(optimizer_config)

    # Flat views

    def weight_buffers(self) -> list[Tensor]:
        """Megatron's flat parameter buffers: all parameters of this rank, with zeros for alignment between them."""
        ddps: list[Any] = [*self.ddps]  # their `buffers` are not those of torch.nn.Module
        return [buffer.param_data for ddp in ddps for buffer in [*ddp.buffers, *ddp.expert_parallel_buffers]]

    def weight_views(self, buffers: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Each parameter and its place in buffers like `weight_buffers`, which may be copies of them elsewhere."""
        ddps: list[Any] = [*self.ddps]
        own = [buffer for ddp in ddps for buffer in [*ddp.buffers, *ddp.expert_parallel_buffers]]
        for buffer, flat in zip(own, buffers, strict=True):
            for parameter, (start, end, _) in buffer.param_index_map.items():
                yield parameter, flat[start:end].view(parameter.shape)

    def moment_buffers(self) -> list[Tensor]:
        """Flat fp32 buffers of this rank's shard: first moments, second moments, and main parameters if bf16.

        Zeros in all of them are a fresh optimizer: main parameters that do not round to the weights are read from the
        weights before the next update.
        """
        return [*self._moments, *([] if self._main is None else [self._main])]

    def fp8_buffers(self) -> list[Tensor]:
        """Scales and histories of FP8's delayed scaling, to be swapped with the weights. Empty without it."""
        return [buffer for module in self.modules for buffer in fp8_buffers(module)]

    def adopt_optimizer_state(self) -> None:
        """Move the optimizer's state into the flat buffers, values kept; missing state becomes zero.

        To be called after `optimizer.load_state_dict`, which allocates new tensors and lets all parameters share one
        step counter.
        """
        uses_step_tensors = not self._steps_in_groups()
        offset = 0
        for inner, parameter in self._shards():
            state = inner.state[parameter]
            for name, flat in zip(MOMENTS, self._moments, strict=True):
                state[name] = _move(state.get(name), flat[offset : offset + parameter.numel()])
            if self._main is not None:
                parameter.data = _move(parameter.data, self._main[offset : offset + parameter.numel()])
            if uses_step_tensors:
                state["step"] = torch.tensor(float(state.get("step", 0.0)))
            offset += parameter.numel()

    # Settings of the role in use

    def configure(self, optimizer_config: OptimizerConfig) -> None:
        """Take over learning rate, weight decay, betas, epsilon and gradient clipping; the state stays."""
        for group in self._groups():
            group["lr"] = optimizer_config.learning_rate * group["lr_mult"]
            group["weight_decay"] = optimizer_config.weight_decay * group["wd_mult"]
            group["betas"] = (optimizer_config.beta1, optimizer_config.beta2)
            group["eps"] = optimizer_config.epsilon
        self._max_grad_norm = optimizer_config.max_grad_norm

    @property
    def learning_rate(self) -> float:
        group = self._groups()[0]
        return group["lr"] / group["lr_mult"]

    def set_learning_rate(self, learning_rate: float) -> None:
        for group in self._groups():
            group["lr"] = learning_rate * group["lr_mult"]

    @property
    def step_count(self) -> int:
        """Updates that Adam's bias correction has counted."""
        if self._steps_in_groups():
            return max(int(group.get("step", 0)) for group in self._groups())
        return int(next((inner.state[parameter]["step"] for inner, parameter in self._shards()), 0))

    @step_count.setter
    def step_count(self, value: int) -> None:
        if self._steps_in_groups():
            for group in self._groups():
                group["step"] = value
            return
        for inner, parameter in self._shards():
            inner.state[parameter]["step"].fill_(value)

    def reset_optimizer(self) -> None:
        """Fresh moments and step count; main parameters are read from the weights again."""
        for buffer in self._moments:
            buffer.zero_()
        self.step_count = 0
        self.optimizer.reload_model_params()
        self._weights_changed = False

    def after_weights_changed(self) -> None:
        """To be called after the weight buffers were written to.

        With bf16 weights, main parameters that no longer round to the weights are replaced by them, before the next
        update and not now: while frozen weights visit, the main parameters of the trained role stay as they are.
        """
        self._weights_changed = True

    # One update

    def zero_gradients(self) -> None:
        """To be called before the forward-backward passes of an update."""
        for ddp in self.ddps:
            ddp.zero_grad_buffer()
        self.optimizer.zero_grad()

    @property
    def balances_experts(self) -> bool:
        """Whether this stage's experts have a load-balancing loss, which must be told each token's sequence."""
        return bool(self._routers)

    def start_balancing(self, tokens: int, *, num_micro_batches: int) -> None:
        """To be called before the forward passes of an update over `tokens` real tokens, of all replicas together."""
        for router in self._routers:
            router.mean_tokens = tokens / (num_micro_batches * self.topology.data)
            router.balance.zero_()

    def router_aux_loss(self, tokens: int) -> float:
        """Load-balancing loss of the last passes, mean over tokens and layers, without coefficient. Collective."""
        if not self.config.num_moe_experts or not self.config.moe_aux_loss_coeff:
            return 0.0
        total = torch.zeros((), dtype=torch.float64, device=self.topology.device)
        for router in self._routers:
            total += router.balance
        dist.all_reduce(total, group=self.topology.world_group)
        return float(total) / (tokens * self.config.num_layers)

    def apply_gradients(self) -> tuple[float, bool]:
        """Clip the finalized gradients, update the weights. Collective.

        Returns the gradient norm before clipping and whether the weights were updated: gradients that are not finite
        change nothing, neither weights nor moments nor the step count.
        """
        self._refresh_main()
        found_inf = False
        if self._offloaded is None:
            found_inf = self.optimizer.prepare_grads()
        else:
            self._offloaded.collect()
        norm = float(self.optimizer.get_grad_norm())
        if found_inf or not math.isfinite(norm):
            return norm, False
        for optimizer in self._chained():
            parameters = optimizer.get_parameters()
            if parameters:
                clip_grads.clip_grad_by_total_norm_fp32(parameters, max_norm=self._max_grad_norm, total_norm=norm)
        if self._offloaded is not None:
            self._offloaded.to_host()
        updated = self.optimizer.step_with_ready_grads()
        assert updated
        return norm, True

    @torch.no_grad()
    def update_norm(self) -> float:
        """Norm of what the last update changed, from the moments that it left. Collective.

        Decoupled AdamW (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2): the change is
        -lr (m̂ / (√v̂ + ε) + decay · old weight), where the old weight follows from the new one.
        """
        total = torch.zeros((), dtype=torch.float64, device=self.topology.device)
        count = self.step_count
        for inner in self._inner():
            for group in inner.param_groups:
                beta1, beta2 = group["betas"]
                rate, decay = group["lr"], group["weight_decay"]
                for parameter in group["params"]:
                    if not (param_is_not_shared(parameter) and self._counts_here(parameter)):
                        continue
                    first, second = (inner.state[parameter][name] for name in MOMENTS)
                    step = first / (1 - beta1**count) / ((second / (1 - beta2**count)).sqrt() + group["eps"])
                    old = (parameter + rate * step) / (1 - rate * decay)
                    total += (step + decay * old).double().square().sum() * rate**2
        dist.all_reduce(total, group=self.topology.world_group)
        return float(total.sqrt())

    # Internals

    def _counts_here(self, parameter: Tensor) -> bool:
        """False on all but the first tensor-parallel rank for what each of them holds whole."""
        return param_is_not_tensor_parallel_duplicate(parameter, self.topology.tensor_group)

    def _inner(self) -> list[Any]:
        """The torch (or fused) Adam of each of Megatron's chained optimizers."""
        return [optimizer.optimizer for optimizer in self._chained() if not optimizer.is_stub_optimizer]

    def _chained(self) -> list[Any]:
        """Megatron's distributed optimizers: one for dense parameters, one more for experts."""
        assert isinstance(self.optimizer, ChainedOptimizer)
        return self.optimizer.chained_optimizers

    def _groups(self) -> list[dict[str, Any]]:
        return [group for inner in self._inner() for group in inner.param_groups]

    def _shards(self) -> Iterator[tuple[Any, Tensor]]:
        """The fp32 parameter shards that this rank's optimizer updates, in a fixed order."""
        for inner in self._inner():
            for group in inner.param_groups:
                for parameter in group["params"]:
                    yield inner, parameter

    def _steps_in_groups(self) -> bool:
        """Transformer Engine's Adam counts steps per group, torch's per parameter."""
        return not isinstance(self._inner()[0], torch.optim.Adam | torch.optim.AdamW)

    def _empty_like_shards(self) -> Tensor:
        numel = sum(parameter.numel() for _, parameter in self._shards())
        pinned = self._state_device != self.topology.device  # true never ran on a GPU
        return torch.zeros(numel, dtype=torch.float32, device=self._state_device, pin_memory=pinned)

    def _offload(self) -> HostGradients:
        if self.config.params_dtype != torch.bfloat16:
            raise ValueError("parallel.optimizer_offload=true needs model.dtype=bfloat16: choose that, or false")
        assert isinstance(self.optimizer, ChainedOptimizer)
        use_torch_adam(self.optimizer)
        return HostGradients(self.optimizer)

    @torch.no_grad()
    def _refresh_main(self) -> None:
        if not self._weights_changed or self._main is None:
            return
        kept = self._main.clone()
        self.optimizer.reload_model_params()
        is_kept = kept.to(self.config.params_dtype).float() == self._main
        self._main.copy_(torch.where(is_kept, kept, self._main))
        self._weights_changed = False


def _move(source: Tensor | None, target: Tensor) -> Tensor:
    if source is not None and source.data_ptr() != target.data_ptr():
        target.copy_(source)
    return target


def _megatron_config(config: OptimizerConfig, params_dtype: torch.dtype) -> MegatronOptimizerConfig:
    return MegatronOptimizerConfig(
        optimizer="adam",
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        adam_beta1=config.beta1,
        adam_beta2=config.beta2,
        adam_eps=config.epsilon,
        clip_grad=config.max_grad_norm,
        use_distributed_optimizer=True,
        bf16=params_dtype == torch.bfloat16,
        params_dtype=params_dtype,
    )
