"""Megatron-core on a machine without CUDA: every change made to the library, in one place.

Megatron-core names "cuda" where it means "the device of this rank". `apply_cpu_backend` rebinds the global name `torch`
inside the modules of megatron-core that do so to a stand-in whose "cuda" is the CPU. torch itself stays as it is, so no
other library and no code of ours sees a difference, and nothing is added to the cost of a torch call. What a stand-in
cannot reach (methods of tensors) is wrapped function by function.

Where neither apex nor Transformer Engine is there, the distributed optimizer runs on torch's Adam, which its checkpoint
code does not quite support: `apply_torch_adam_fixes` is for any device, and so is `apply_checkpoint_fixes`.

`CPU_PATCHES`, `ADAM_PATCHES` and `CHECKPOINT_PATCHES` list every change with its upstream symbol, its reason and when
it goes.
Written against megatron-core 0.16.1.
"""

import contextlib
import functools
import importlib
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Patch:
    """One change of megatron-core.

    `symbols` are dotted upstream names; `reason` says what fails without it; `remove_when` what upstream must do first.
    """

    name: str
    symbols: tuple[str, ...]
    reason: str
    remove_when: str
    apply: Callable[["Patch"], None]


def apply_cpu_backend() -> None:
    """Apply every patch of `CPU_PATCHES` once; a second call does nothing. Call it before any model is built."""
    _apply(CPU_PATCHES)


def apply_torch_adam_fixes(*, always: bool) -> None:
    """Apply every patch of `ADAM_PATCHES` once, if megatron-core takes torch's Adam of itself, or `always`."""
    if always or not _import("megatron.core.optimizer.distrib_optimizer").HAVE_APEX_OR_TE:
        _apply(ADAM_PATCHES)


def apply_checkpoint_fixes() -> None:
    """Apply every patch of `CHECKPOINT_PATCHES` once."""
    _apply(CHECKPOINT_PATCHES)


def _apply(patches: tuple[Patch, ...]) -> None:
    for patch in patches:
        if patch.name not in _applied:
            patch.apply(patch)
            _applied.add(patch.name)


_applied: set[str] = set()


# --- the name `torch` inside megatron-core ---------------------------------------------------------------------------


class _NoStream:
    """A CUDA stream or event where all work is already done when a call returns."""

    device = _CPU
    cuda_stream = 0

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def _nothing(self, *args: object, **kwargs: object) -> None: ...

    wait_stream = wait_event = wait = synchronize = record = _nothing

    def record_event(self, *args: object) -> "_NoStream":
        return self

    def query(self) -> bool:
        return True

    def elapsed_time(self, *args: object) -> float:
        return 0.0


def _is_cuda(device: object) -> bool:
    if isinstance(device, torch.device):
        return device.type == "cuda"
    return isinstance(device, int) or (isinstance(device, str) and device.split(":")[0] == "cuda")


def _on_cpu(factory: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(factory)
    def make(*args: Any, **kwargs: Any) -> Any:
        if _is_cuda(kwargs.get("device")):
            kwargs["device"] = _CPU
        kwargs.pop("pin_memory", None)
        return factory(*args, **kwargs)

    return make


@contextlib.contextmanager
def _no_context(*_: object) -> Iterator[None]:
    yield


class _Module(types.ModuleType):
    """A copy of a module's names with some replaced. Names that the original makes on demand are asked of it."""

    def __init__(self, original: types.ModuleType, replaced: dict[str, Any]) -> None:
        super().__init__(original.__name__)
        self.__dict__.update(original.__dict__)
        self.__dict__.update(replaced)
        self.__dict__["_original"] = original

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_original"], name)


@functools.cache
def _torch_on_cpu() -> types.ModuleType:
    def get_rng_state(*_: object, **__: object) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(state: torch.Tensor, *_: object, **__: object) -> None:
        torch.set_rng_state(state)

    def nothing(*_: object, **__: object) -> None: ...

    cuda: dict[str, Any] = {
        "current_device": lambda: _CPU,
        "synchronize": nothing,
        "empty_cache": nothing,
        "get_rng_state": get_rng_state,
        "set_rng_state": set_rng_state,
        "manual_seed": torch.manual_seed,
        "random": types.SimpleNamespace(get_rng_state=get_rng_state, set_rng_state=set_rng_state),
        "Stream": _NoStream,
        "Event": _NoStream,
        "current_stream": _NoStream,
        "default_stream": _NoStream,
        "stream": _no_context,
    }
    factories = ("empty", "zeros", "ones", "full", "tensor", "arange", "empty_like", "zeros_like", "ones_like")
    replaced: dict[str, Any] = {name: _on_cpu(getattr(torch, name)) for name in factories}
    return _Module(torch, replaced | {"cuda": _Module(torch.cuda, cuda)})


def _import(name: str) -> Any:
    with warnings.catch_warnings():  # that apex and Transformer Engine are absent is known here
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def _redirect_torch(patch: Patch) -> None:
    for symbol in patch.symbols:
        module = _import(symbol.removesuffix(".torch"))
        assert module.torch is torch, symbol
        module.torch = _torch_on_cpu()


# --- functions that use methods of tensors ---------------------------------------------------------------------------


class _CudaTensorMethods(TorchFunctionMode):
    """While it is entered, `Tensor.type()` answers as on a GPU, and `.cuda()` and `.to("cuda")` give a CPU tensor."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.cuda:
            return args[0]
        if func is torch.Tensor.type and len(args) == 1 and not kwargs:
            return func(*args).replace("torch.", "torch.cuda.")
        if func is torch.Tensor.to and len(args) > 1 and _is_cuda(args[1]):
            args = (args[0], _CPU, *args[2:])
        if _is_cuda(kwargs.get("device")):
            kwargs = {**kwargs, "device": _CPU}
        return func(*args, **kwargs)


def _resolve(symbol: str) -> tuple[Any, str]:
    """The object that holds the last part of a dotted name, and that part."""
    parts = symbol.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            owner: Any = _import(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:-1]:
            owner = getattr(owner, part)
        return owner, parts[-1]
    raise AttributeError(f"megatron-core has no {symbol}")


def _pretend_cuda(patch: Patch) -> None:
    for symbol in patch.symbols:
        owner, name = _resolve(symbol)
        raw = vars(owner)[name]
        function = raw.__func__ if isinstance(raw, classmethod | staticmethod) else raw

        @functools.wraps(function)
        def wrapped(*args: Any, _function: Callable[..., Any] = function, **kwargs: Any) -> Any:
            with _CudaTensorMethods():
                return _function(*args, **kwargs)

        setattr(owner, name, type(raw)(wrapped) if isinstance(raw, classmethod | staticmethod) else wrapped)
        for user in _USERS_BY_NAME.get(symbol, ()):
            setattr(_import(user), name, wrapped)


# Modules that hold a function under their own name through `from … import …`.
_USERS_BY_NAME = {
    "megatron.core.optimizer.clip_grads.clip_grad_by_total_norm_fp32": ("megatron.core.optimizer.optimizer",),
}


def _rng_of_cpu(patch: Patch) -> None:
    def get_state(*_: object, **__: object) -> torch.Tensor:
        return torch.get_rng_state()

    def set_state(new_state: torch.Tensor, *_: object, **__: object) -> None:
        torch.set_rng_state(new_state)

    module = _import("megatron.core.tensor_parallel.random")
    module._get_cuda_rng_state, module._set_cuda_rng_state = get_state, set_state


# --- experts ---------------------------------------------------------------------------------------------------------


def _name_what_is_absent(patch: Patch) -> None:
    for symbol in patch.symbols:
        owner, name = _resolve(symbol)
        if not hasattr(owner, name):
            setattr(owner, name, None)


def _splits_as_numpy(patch: Patch) -> None:
    owner, name = _resolve(patch.symbols[0])

    def move(tensor: Any, as_numpy: bool = False, record_stream: bool = False) -> Any:
        return tensor.numpy() if as_numpy and torch.is_tensor(tensor) else tensor

    setattr(owner, name, move)
    _import("megatron.core.transformer.moe.token_dispatcher").maybe_move_tensor_to_cpu = move


def _uneven_gather(patch: Patch) -> None:
    owner, name = _resolve(patch.symbols[0])
    original = getattr(owner, name)

    @functools.wraps(original)
    def gather(input_: Any, group: Any, output_split_sizes: Any = None, use_global_buffer: bool = False) -> Any:
        if output_split_sizes is None or group.size() == 1:
            return original(input_, group, output_split_sizes, use_global_buffer)
        longest = max(1, *output_split_sizes)
        padded = input_.new_zeros(longest, *input_.shape[1:])
        padded[: len(input_)] = input_
        gathered = original(padded, group)
        return torch.cat([p[:n] for p, n in zip(gathered.split(longest), output_split_sizes, strict=True)])

    setattr(owner, name, gather)


# --- torch's Adam under the distributed optimizer --------------------------------------------------------------------


def _prime_before_state_dict(patch: Patch) -> None:
    cls, name = _resolve(patch.symbols[0])
    original = getattr(cls, name)

    @functools.wraps(original)
    def state_dict(self: Any) -> Any:
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter not in self.optimizer.state:
                    self.optimizer.state[parameter] = {
                        "step": torch.tensor(0.0),
                        "exp_avg": torch.zeros_like(parameter),
                        "exp_avg_sq": torch.zeros_like(parameter),
                    }
        return original(self)

    setattr(cls, name, state_dict)


def _own_step_after_load(patch: Patch) -> None:
    cls, name = _resolve(patch.symbols[0])
    original = getattr(cls, name)

    @functools.wraps(original)
    def load_state_dict(self: Any, state_dict: Any) -> None:
        original(self, state_dict)
        for state in self.optimizer.state.values():
            if "step" in state:  # beside Transformer Engine (never ran) megatron-core loads none
                state["step"] = state["step"].detach().clone()

    setattr(cls, name, load_state_dict)


def _keep_step_of_state(patch: Patch) -> None:
    cls, name = _resolve(patch.symbols[0])
    original = getattr(cls, name)

    @functools.wraps(original)
    def set_states(self: Any, model_param: Any, tensors: dict[str, Any]) -> None:
        present = self._get_main_param_and_optimizer_states(model_param)
        with torch.no_grad():
            original(self, model_param, {"step": present["step"], **tensors})

    setattr(cls, name, set_states)


def _keep_padding_between_buckets(patch: Patch) -> None:
    cls, name = _resolve(patch.symbols[0])
    original = getattr(cls, name)

    @functools.wraps(original)
    def sharded_state(self: Any, *args: Any, **kwargs: Any) -> Any:
        sized = [part for buffer in self.buffers for part in (buffer, *buffer.buckets)]
        unpadded = [part.numel_unpadded for part in sized]
        try:
            for part in sized:
                part.numel_unpadded = part.grad_data.numel()
            return original(self, *args, **kwargs)
        finally:
            for part, numel in zip(sized, unpadded, strict=True):
                part.numel_unpadded = numel

    setattr(cls, name, sharded_state)


_NAMES_CUDA = "names the device 'cuda' or torch.cuda.current_device() for buffers, streams and synchronisation"
_UPSTREAM_DEVICE = "megatron-core takes the device of a rank from one place that may answer 'cpu'"

CPU_PATCHES: tuple[Patch, ...] = (
    Patch(
        name="torch inside megatron-core",
        symbols=tuple(
            f"megatron.core.{module}.torch"
            for module in (
                "tensor_parallel.data",
                "tensor_parallel.layers",
                "tensor_parallel.mappings",
                "tensor_parallel.random",
                "tensor_parallel.utils",
                "models.common.embeddings.rotary_pos_embedding",
                "models.gpt.gpt_model",
                "transformer.attention",
                "transformer.module",
                "transformer.moe.moe_utils",
                "transformer.moe.router",
                "transformer.moe.token_dispatcher",
                "transformer.transformer_layer",
                "transformer.utils",
                "pipeline_parallel.p2p_communication",
                "pipeline_parallel.schedules",
                "distributed.distributed_data_parallel",
                "distributed.param_and_grad_buffer",
                "optimizer.clip_grads",
                "optimizer.distrib_optimizer",
                "optimizer.grad_scaler",
                "optimizer.optimizer",
                "dist_checkpointing.exchange_utils",
                "dist_checkpointing.strategies.async_utils",
                "dist_checkpointing.strategies.filesystem_async",
                "dist_checkpointing.strategies.fully_parallel",
                "dist_checkpointing.strategies.state_dict_saver",
                "timers",
                "utils",
            )
        ),
        reason=_NAMES_CUDA,
        remove_when=_UPSTREAM_DEVICE,
        apply=_redirect_torch,
    ),
    Patch(
        name="tensor methods that name CUDA",
        symbols=(
            "megatron.core.models.common.language_module.language_module.LanguageModule"
            ".setup_embeddings_and_output_layer",
            "megatron.core.optimizer.clip_grads.clip_grad_by_total_norm_fp32",
            "megatron.core.optimizer.distrib_optimizer.DistributedOptimizer.__init__",
            "megatron.core.optimizer.distrib_optimizer.DistributedOptimizer.get_parameter_state_dp_zero",
            "megatron.core.optimizer.optimizer.Float16OptimizerWithFloat16Params.__init__",
        ),
        reason="calls Tensor.cuda(), or compares Tensor.type() with 'torch.cuda.FloatTensor'",
        remove_when=_UPSTREAM_DEVICE,
        apply=_pretend_cuda,
    ),
    Patch(
        name="kernels of Transformer Engine for experts",
        symbols=("megatron.core.transformer.moe.moe_utils.te_general_gemm",),
        reason="is compared with None, but has no value where Transformer Engine is absent",
        remove_when="moe_utils sets the name to None in its `except ImportError`",
        apply=_name_what_is_absent,
    ),
    Patch(
        name="sizes of what experts exchange",
        symbols=("megatron.core.transformer.moe.moe_utils.maybe_move_tensor_to_cpu",),
        reason="makes a NumPy array of what is on a GPU only; torch.distributed takes no tensor for a list of sizes",
        remove_when="maybe_move_tensor_to_cpu does as `as_numpy` says with tensors that are on the CPU already",
        apply=_splits_as_numpy,
    ),
    Patch(
        name="gather parts of several sizes",
        symbols=("megatron.core.tensor_parallel.mappings._gather_along_first_dim",),
        reason="gloo gathers parts of one size only",
        remove_when="ProcessGroupGloo.allgather takes outputs of several sizes",
        apply=_uneven_gather,
    ),
    Patch(
        name="random state of the device",
        symbols=(
            "megatron.core.tensor_parallel.random._get_cuda_rng_state",
            "megatron.core.tensor_parallel.random._set_cuda_rng_state",
        ),
        reason="reaches for the default generator of a CUDA device",
        remove_when=_UPSTREAM_DEVICE,
        apply=_rng_of_cpu,
    ),
)

_OPTIMIZER = "megatron.core.optimizer.distrib_optimizer.DistributedOptimizer"

ADAM_PATCHES: tuple[Patch, ...] = (
    Patch(
        name="state before the first step",
        symbols=(f"{_OPTIMIZER}.state_dict",),
        reason="torch's Adam has no state before its first step, and state_dict asserts that there is a `step`",
        remove_when="a distributed optimizer over torch's Adam can be saved and loaded before its first step",
        apply=_prime_before_state_dict,
    ),
    Patch(
        name="one step count per parameter",
        symbols=(f"{_OPTIMIZER}.load_state_dict",),
        reason="load gives all parameters one `step` tensor; each update then advances it once per parameter",
        remove_when="load_state_dict gives every parameter a `step` tensor of its own",
        apply=_own_step_after_load,
    ),
    Patch(
        name="parameters and states from a sharded checkpoint",
        symbols=(f"{_OPTIMIZER}._set_main_param_and_optimizer_states",),
        reason="loading a distributed checkpoint writes to fp32 parameters outside torch.no_grad, and then raises "
        "KeyError: 'step', since torch's Adam keeps a step per parameter",
        remove_when="_set_main_param_and_optimizer_states uses no_grad and leaves alone what it is not given",
        apply=_keep_step_of_state,
    ),
)

CHECKPOINT_PATCHES: tuple[Patch, ...] = (
    Patch(
        name="padding between gradient buckets",
        symbols=(f"{_OPTIMIZER}.sharded_param_state_fully_reshardable",),
        reason="joins the buckets' states without the padding at their ends, and then cuts parameters out at places "
        "that count it: tied embeddings in a pipeline, which have a bucket of their own, are saved shifted",
        remove_when="get_parameter_state_dp_zero and sharded_param_state_fully_reshardable agree about padding",
        apply=_keep_padding_between_buckets,
    ),
)
