"""`python -m seif_nemo report RUN_DIR`."""

import sys
from collections.abc import Sequence
from pathlib import Path


def run_report(arguments: Sequence[str]) -> int:
    from seif_nemo.observability.report import write_report

    if len(arguments) != 1:
        print("usage: python -m seif_nemo report RUN_DIR", file=sys.stderr)
        return 2
    run_dir = Path(arguments[0])
    if not (run_dir / "config.yaml").is_file():
        print(f"seif_nemo: {run_dir} is no run directory: it has no config.yaml", file=sys.stderr)
        return 2
    print(write_report(run_dir))
    return 0
