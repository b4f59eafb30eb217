"""`python -m seif_nemo convert --from PATH --to PATH …`: weights between Hugging Face and Megatron formats."""

import argparse
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Any

from seif_nemo.config.parallel import ParallelConfig

EXIT_FAULT = 1
EXIT_BAD_INPUT = 2

_DESCRIPTION = """Convert weights. From a Hugging Face directory comes a Megatron distributed checkpoint, divided by
parallel.* over the ranks of this world; from a checkpoint of seif_nemo, NeMo 2 or Megatron-LM comes a Hugging Face
directory. A conversion that was interrupted continues, one that is finished is left alone."""


def run_convert(arguments: Sequence[str]) -> int:
    """Parse, convert, print one line; the exit code: 0 done, 1 a fault, 2 bad input."""
    options, refusal = _parse(arguments)
    if options is None:
        return EXIT_BAD_INPUT if refusal is None else _refuse(refusal)
    try:
        parallel = _parallel(options.parallel)
    except ValueError as error:
        return _refuse(str(error))
    return _run(options, parallel)


def _run(options: argparse.Namespace, parallel: ParallelConfig) -> int:
    # These take seconds to import, and a mistyped key must not cost seconds.
    from seif_nemo.observability.logging import quiet_known_warnings

    quiet_known_warnings()
    import torch

    from seif_nemo.checkpointing.manifest import CheckpointError
    from seif_nemo.components.conversion import Conversion, Format, convert
    from seif_nemo.observability.meter import Meter
    from seif_nemo.parallel.topology import build_topology, shutdown
    from seif_nemo.weights.to_hf import ConversionError

    request = Conversion(
        source=options.source,
        target=options.target,
        config_dir=options.config,
        target_format=None if options.format is None else Format[options.format],
        dtype=None if options.dtype is None else getattr(torch, options.dtype),
        max_file_bytes=round(options.max_file_gb * 1e9),
        overwrite=options.overwrite,
    )
    try:
        topology = build_topology(parallel, seed=0, threads=options.threads)
    except ValueError as error:
        return _refuse(str(error))
    meter = Meter(sys.stderr if topology.is_main else StringIO())
    code = 0
    try:
        told = convert(request, parallel, topology, meter)
        meter.close()
        if topology.is_main:
            print(told, flush=True)
    except ValueError as error:
        meter.close()
        code = _refuse(str(error))
    except (ConversionError, CheckpointError, OSError) as error:
        meter.close()
        print(f"seif_nemo: rank {topology.rank}: {error}", file=sys.stderr, flush=True)
        code = EXIT_FAULT
    shutdown(topology)
    return code


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace | None, str | None]:
    """The options, or None and what to say (None: argparse has said it)."""
    parser = argparse.ArgumentParser(prog="python -m seif_nemo convert", description=_DESCRIPTION, exit_on_error=False)
    parser.add_argument("--from", dest="source", type=Path, required=True, metavar="PATH")
    parser.add_argument("--to", dest="target", type=Path, required=True, metavar="PATH")
    parser.add_argument(
        "--config", type=Path, metavar="HF_DIR", help="config.json and tokenizer, where the source does not have them"
    )
    parser.add_argument("--format", choices=["hf", "megatron"], help="of --to (the other one than that of --from)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="(that of --from)")
    parser.add_argument(
        "--max-file-gb", type=float, default=5.0, help="of a safetensors file (5; or as --config has it)"
    )
    parser.add_argument("--threads", type=int, default=1, help="per rank (1)")
    parser.add_argument("--overwrite", action="store_true", help="replace what --to holds")
    parser.add_argument("parallel", nargs="*", metavar="parallel.KEY=VALUE", help="layout of a Megatron checkpoint")
    try:
        options = parser.parse_args(arguments)
    except argparse.ArgumentError as error:
        return None, str(error)
    except SystemExit as ended:
        if ended.code == 0:
            raise
        return None, None
    if options.max_file_gb <= 0:
        return None, f"--max-file-gb {options.max_file_gb} must be positive"
    return options, None


def _parallel(overrides: Sequence[str]) -> ParallelConfig:
    """Raises ValueError, one line that names the key."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    keys = [f"parallel.{key}" for key in ParallelConfig.__dataclass_fields__]
    values: list[str] = []
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or key not in keys:
            near = get_close_matches(key, keys, n=1)
            raise ValueError(f"{override}: there is no key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        values.append(override.removeprefix("parallel."))
    try:
        merged: Any = OmegaConf.merge(OmegaConf.structured(ParallelConfig), OmegaConf.from_dotlist(values))
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ValueError(f"{' '.join(overrides)}: {str(error).splitlines()[0]}") from error
    assert isinstance(config, ParallelConfig)
    return config


def _refuse(message: str) -> int:
    """On the main rank only: all ranks come to the same line."""
    if int(os.environ.get("RANK", "0")) == 0:
        print(f"seif_nemo: {message}", file=sys.stderr, flush=True)
    return EXIT_BAD_INPUT
