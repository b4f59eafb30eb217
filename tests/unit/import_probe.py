"""Imports every module of seif_nemo and prints what that changed beyond loading modules; exit code 1 if anything.

Run by test_style.py in a fresh interpreter. Megatron-core and transformers are imported first, so that what they do
themselves at import does not count.
"""

import importlib
import importlib.util
import logging
import os
import pkgutil
import random
import signal
import sys
import threading
from collections.abc import Iterator
from types import FunctionType, ModuleType

import torch
import torch.distributed

FOREIGN = ("torch", "megatron", "transformers")
UPSTREAM = (
    "transformers",
    "megatron.core.parallel_state",
    "megatron.core.optimizer",
    "megatron.core.distributed",
    "megatron.core.tensor_parallel",
    "megatron.core.pipeline_parallel",
    "megatron.core.models.gpt",
    "megatron.core.dist_checkpointing",
    "megatron.core.inference.contexts",
)


def attributes(owner: object) -> dict[str, int]:
    return {name: id(value) for name, value in vars(owner).items() if not issubclass(type(value), ModuleType)}


def state() -> dict[str, object]:
    """What an import must leave alone."""
    return {
        "torch.cuda": attributes(torch.cuda),
        "torch.distributed": attributes(torch.distributed),
        "torch.Tensor": attributes(torch.Tensor),
        "environment": dict(os.environ),
        "torch threads": torch.get_num_threads(),
        "python threads": threading.active_count(),
        "torch seed": torch.initial_seed(),
        "random state": random.getstate(),
        "default dtype": torch.get_default_dtype(),
        "process group": torch.distributed.is_initialized(),
        "cuda context": torch.cuda.is_initialized(),
        "signal handlers": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)],
        "log handlers": list(logging.getLogger().handlers),
        "working directory": os.getcwd(),
    }


def taken_over() -> Iterator[str]:
    """Attributes of foreign modules, and of the classes in them, that seif_nemo put there."""
    for name, module in list(sys.modules.items()):
        if not name.startswith(FOREIGN):
            continue
        for key, value in list(vars(module).items()):
            members = {key: value}
            if isinstance(value, type):
                members |= {f"{key}.{member}": item for member, item in vars(value).items()}
            for label, item in members.items():
                if origin(item).startswith("seif_nemo"):
                    yield f"{name}.{label}"


def origin(item: object) -> str:
    """The module that defined a function, method, property or class; for other objects that of their class."""
    # type() and not isinstance(): some module attributes are lazy and raise when asked for __class__.
    if type(item) in (classmethod, staticmethod):
        item = getattr(item, "__func__")  # noqa: B009
    elif type(item) is property:
        item = item.fget
    named = type(item) is FunctionType or issubclass(type(item), type)
    return str(getattr(item, "__module__") if named else type(item).__module__)  # noqa: B009


def main() -> None:
    for name in UPSTREAM:
        importlib.import_module(name)
    before = state()
    package = importlib.import_module("seif_nemo")
    names = [info.name for info in pkgutil.walk_packages(package.__path__, "seif_nemo.")]
    for name in names:
        absent = ".vllm" in name and importlib.util.find_spec("vllm") is None
        if not absent and not name.endswith("__main__"):
            importlib.import_module(name)
    after = state()
    changed = [key for key in before if before[key] != after[key]] + sorted(set(taken_over()))
    print(len(names), "modules")
    print("\n".join(changed))
    raise SystemExit(bool(changed))


if __name__ == "__main__":
    main()
