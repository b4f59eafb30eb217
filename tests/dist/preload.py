"""What the fork server imports once, so that ranks start fast. It must start no thread and no process group."""

import importlib
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for _name in (
        "torch",
        "safetensors.torch",
        "transformers",
        "megatron.core.distributed",
        "megatron.core.models.gpt",
        "megatron.core.optimizer",
        "megatron.core.pipeline_parallel",
    ):
        importlib.import_module(_name)
