"""Each patch of megatron-core is still needed, does what it is for, and leaves torch alone."""

import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.dist.harness import run_ranks
from tests.tiny_hf import make_tiny_hf

_CUDA_NAMED = re.compile(r"""torch\.cuda\.|=\s*["']cuda["']|\(["']cuda["']\)""")
_TENSOR_METHODS = re.compile(r"""\.cuda\(|\.type\(\) (==|in) """)


def _source(symbol: str) -> str:
    """The text of a module, class or function of megatron-core that is named by a dotted path."""
    from seif_nemo.parallel.cpu_backend import _resolve

    owner, name = _resolve(symbol)
    return inspect.getsource(getattr(owner, name))


def _unpatched_sources() -> dict[str, bool]:
    """Patched symbol -> whether its text still names CUDA where the patch expects it."""
    from seif_nemo.parallel.cpu_backend import CPU_PATCHES

    by_name = {patch.name: patch for patch in CPU_PATCHES}
    answer = {}
    for symbol in by_name["torch inside megatron-core"].symbols:
        module = importlib.import_module(symbol.removesuffix(".torch"))
        answer[symbol] = module.torch is torch and bool(_CUDA_NAMED.search(inspect.getsource(module)))
    for symbol in by_name["tensor methods that name CUDA"].symbols:
        answer[symbol] = bool(_TENSOR_METHODS.search(_source(symbol)))
    for symbol in by_name["random state of the device"].symbols:
        answer[symbol] = "torch.cuda" in _source(symbol)
    return answer


def _fails_unpatched() -> list[str]:
    """What upstream says on the CPU without the patches."""
    from megatron.core.tensor_parallel import random
    from megatron.core.transformer.utils import get_default_causal_mask

    return [_error(call) for call in (random._get_cuda_rng_state, lambda: get_default_causal_mask(3))]


def _error(call: Callable[[], Any]) -> str:
    try:
        call()
    except (AssertionError, RuntimeError) as error:
        return str(error)
    return "no error"


def _patched_twice() -> tuple[bool, bool, str, bool]:
    from megatron.core.pipeline_parallel import schedules
    from megatron.core.transformer.utils import get_default_causal_mask

    from seif_nemo.parallel.cpu_backend import apply_cpu_backend

    apply_cpu_backend()
    first = schedules.torch
    apply_cpu_backend()
    mask = get_default_causal_mask(3)
    expected = torch.tensor([[0, 1, 1], [0, 0, 1], [0, 0, 0]]).bool()
    return (
        schedules.torch is first,
        torch.equal(mask, expected),
        _error(lambda: torch.ones(1, device="cuda")),
        (schedules.torch.nn is torch.nn and schedules.torch.float32 is torch.float32),
    )


def test_every_cpu_patch_is_needed_and_reaches_megatron_alone() -> None:
    (needed,) = run_ranks(1, _unpatched_sources)
    assert all(needed.values()), f"remove these patches: {[symbol for symbol, still in needed.items() if not still]}"
    (errors,) = run_ranks(1, _fails_unpatched)
    assert all(re.search("CUDA|NVIDIA", error) for error in errors), errors
    ((same, right, outside, shared),) = run_ranks(1, _patched_twice)
    assert same, "a second call changes nothing"
    assert right, "megatron's cuda mask is made on the CPU"
    assert re.search("CUDA|NVIDIA", outside), f"torch itself must still refuse CUDA: {outside}"
    assert shared


def _experts_without_and_with_fixes() -> None:
    import torch.distributed as dist
    from megatron.core.tensor_parallel import mappings
    from megatron.core.transformer.moe import moe_utils, token_dispatcher

    from seif_nemo.config.parallel import ParallelConfig
    from seif_nemo.parallel.topology import build_topology

    sizes = torch.tensor([2, 1])
    assert not hasattr(moe_utils, "te_general_gemm")
    assert torch.is_tensor(moe_utils.maybe_move_tensor_to_cpu(sizes, as_numpy=True))
    topology = build_topology(ParallelConfig(tensor=2), seed=1, threads=1)
    group, rank = topology.tensor_group, topology.rank
    own = torch.full((2 - rank, 3), float(rank + 1))
    parts = [torch.empty(2, 3), torch.empty(1, 3)]
    with pytest.raises(RuntimeError, match="invalid tensor size"):
        dist.all_gather(parts, own, group=group)

    assert moe_utils.te_general_gemm is None
    assert token_dispatcher.maybe_move_tensor_to_cpu(sizes, as_numpy=True).tolist() == [2, 1]
    gathered = mappings.gather_from_sequence_parallel_region(own, group=group, output_split_sizes=[2, 1])
    assert gathered[:, 0].tolist() == [1, 1, 2]
    nothing = own[:0] if rank else own
    gathered = mappings.gather_from_sequence_parallel_region(nothing, group=group, output_split_sizes=[2, 0])
    assert gathered[:, 0].tolist() == [1, 1]


def test_every_patch_for_experts_is_needed_and_works() -> None:
    run_ranks(2, _experts_without_and_with_fixes)


def _adam_without_and_with_fixes(path: Path) -> None:
    from seif_nemo.parallel import topology as topology_module
    from seif_nemo.parallel.cpu_backend import apply_torch_adam_fixes

    topology_module.apply_torch_adam_fixes = lambda **_: None
    optimizer = _optimizer(path)
    parameter = next(iter(optimizer.model_param_group_index_map))

    with pytest.raises(AssertionError):
        optimizer.state_dict()
    _step(optimizer)
    saved = optimizer.state_dict()
    optimizer.load_state_dict(saved)
    steps = [state["step"] for state in optimizer.optimizer.state.values()]
    assert len(steps) > 10
    assert len({step.data_ptr() for step in steps}) == 1, "upstream shares one step tensor"
    shard = optimizer._get_main_param_and_optimizer_states(parameter)["param"]
    moments = {name: torch.full_like(shard, value) for name, value in (("param", 1.0), ("exp_avg", 2.0))}
    moments["exp_avg_sq"] = torch.full_like(shard, 3.0)
    with pytest.raises(RuntimeError, match="leaf Variable"):
        optimizer._set_main_param_and_optimizer_states(parameter, moments)
    with torch.no_grad(), pytest.raises(KeyError, match="step"):
        optimizer._set_main_param_and_optimizer_states(parameter, moments)

    apply_torch_adam_fixes(always=False)
    optimizer.load_state_dict(saved)
    steps = [state["step"] for state in optimizer.optimizer.state.values()]
    assert len({step.data_ptr() for step in steps}) == len(steps)
    optimizer._set_main_param_and_optimizer_states(parameter, moments)
    state = optimizer._get_main_param_and_optimizer_states(parameter)
    assert {name: float(state[name].flatten()[0]) for name in state} == {
        "param": 1.0,
        "step": 1.0,
        "exp_avg": 2.0,
        "exp_avg_sq": 3.0,
    }
    _step(optimizer)
    assert {float(state["step"]) for state in optimizer.optimizer.state.values()} == {2.0}
    optimizer.optimizer.state.clear()
    assert optimizer.state_dict()["optimizer"]["param_groups"][0]["step"] == 0.0


def _optimizer(path: Path) -> Any:
    from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
    from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer

    from seif_nemo.config.parallel import ParallelConfig
    from seif_nemo.models.architecture import read_architecture
    from seif_nemo.models.builder import build_gpt
    from seif_nemo.parallel.topology import build_topology
    from seif_nemo.weights.hf import load_hf_weights

    topology = build_topology(ParallelConfig(), seed=1, threads=1)
    arch = read_architecture(path)
    modules = build_gpt(arch, topology, dtype=torch.float32, max_sequence_length=8)
    (model,) = modules
    load_hf_weights(modules, arch, topology, path)
    ddp = DistributedDataParallel(model.config, DistributedDataParallelConfig(use_distributed_optimizer=True), model)
    config = OptimizerConfig(optimizer="adam", lr=1e-3, use_distributed_optimizer=True)
    chained: Any = get_megatron_optimizer(config, [ddp], use_gloo_process_groups=False)
    return chained.chained_optimizers[0]


def _step(optimizer: Any) -> None:
    for buffer in optimizer.buffers:
        buffer.grad_data.fill_(0.1)
    optimizer.step()


def test_every_adam_patch_is_needed_and_works(tmp_path: Path) -> None:
    run_ranks(1, _adam_without_and_with_fixes, make_tiny_hf(tmp_path / "model"))
